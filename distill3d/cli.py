"""The command line: verbs, one config, and ``key=value`` settings. Whatever is heavy is imported where it is needed."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from distill3d import __version__
from distill3d.config.check import ConfigError, nearest
from distill3d.runtime.logs import forget_warnings, set_up_logging
from distill3d.runtime.program import command, python_arguments
from distill3d.verbs import NAMES, Request, Verb, runner, verbs

log = logging.getLogger(__name__)

# errors that libraries raise for a mistake in a setting; by name, since torch and Lightning are imported late
_OF_LIBRARIES = ("OutOfMemoryError", "MisconfigurationException")
_FILE_AS_TEXT = re.compile(r"file:(//)?(?P<path>[^@\s]\S*)|[^@\s]\S*\.txt")
_EXAMPLES = """\
examples:
  {command} --config dreamfusion.yaml
  {command} --config dreamfusion.yaml --train system.prompt_processor.prompt="a pineapple" seed=3
  {command} --config dreamfusion.yaml data.batch_size=2 trainer.max_steps=2000 system.guidance_type=sds
  {command} --config dreamfusion.yaml --train --sweep system.guidance_type=sds,lmc-sds seed=0:2:1
  {command} --evaluate outputs/NAME/TRIAL
  {command} --config outputs/NAME/TRIAL/configs/parsed.yaml --train  resume=outputs/NAME/TRIAL/ckpts/last.ckpt
  {command} --config outputs/NAME/TRIAL/configs/parsed.yaml --export resume=outputs/NAME/TRIAL/ckpts/last.ckpt

Settings are key=value without dashes. A prompt is taken as it is written; other values are YAML: 3, 1e-3, [1, 2], null.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code: 0 done, 1 a defect of the program, 2 a mistake in the input.

    A mistake is one line on standard error; DISTILL3D_DEBUG=1 adds the traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("DISTILL3D_DEBUG", "0") not in ("", "0") or not is_for_the_user(error):
            raise
        log.error("%s", _one_line(error))
        return 2
    finally:
        forget_warnings()
        trial = sys.modules.get("distill3d.runtime.trial")
        if trial is not None:
            trial.release_trials()


def parse(arguments: Sequence[str]) -> tuple[Request, argparse.Namespace]:
    """A command line as a request, and the general options; exits with code 2 where it cannot be understood."""
    table = verbs()
    parser = _parser(table)
    given = parser.parse_intermixed_args(list(arguments))
    request = Request(
        verb=_verb(parser, given, table),
        config=given.config,
        overrides=tuple(given.settings),
        argv=python_arguments(arguments),
        options={name: vars(given)[name] for verb in table.values() for name in (*verb.options, *verb.flags)},
    )
    verb = table[request.verb]
    if verb.metavar:
        own = getattr(given, verb.name)
        several = {"argument": own} if isinstance(own, str) else {"arguments": tuple(own)}
        request = Request(**{**vars(request), **several})
    elif request.config is None and verb.needs_config and not given.list:
        parser.error("--config is missing: name a YAML, such as --config dreamfusion.yaml")
    return request, given


def is_for_the_user(error: BaseException) -> bool:
    """Whether an error is a mistake in the input, told in words, and not a defect of the program.

    ValueErrors count if this package or an extension raised them: those of libraries are nobody's message.
    """
    if isinstance(error, (ConfigError, OSError)) or type(error).__name__ in _OF_LIBRARIES or _is_of_memory(error):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return isinstance(error, ValueError) and module.split(".")[0] in ("distill3d", "distill3d_custom")


def _is_of_memory(error: BaseException) -> bool:
    """Whether the CPU's memory did not suffice: numpy's and Python's error, or torch's allocator."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _run(arguments: Sequence[str]) -> int:
    request, given = parse(arguments)
    set_up_logging(given.verbose)
    if given.gpu is not None:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", given.gpu)
    if given.typecheck:
        log.info("--typecheck has no effect: settings and shapes are always checked")
    from distill3d.config.experiment import check_early
    from distill3d.runtime.extensions import import_extensions

    if given.list:
        from distill3d.config.listing import print_types

        import_extensions()
        print_types(sys.stdout)
        return 0
    _check_early(request)
    import_extensions()  # and with them torch
    if request.config is not None and request.verb != "sweep":
        check_early(request.config, request.overrides, parts=True)
    return runner(request.verb)(request)


def _check_early(request: Request) -> None:
    """Find the mistakes that need no torch before it is imported. Raises ConfigError."""
    from distill3d.config.experiment import check_early, find_config
    from distill3d.config.yaml_text import is_text_key
    from distill3d.runtime.foreign import user_path

    first = request.argument or next(iter(request.arguments), None)
    if first is not None and not user_path(first).exists():
        raise ConfigError(f"--{request.verb} {first}: no such file or folder")
    if request.config is None:
        return
    if request.verb == "sweep":  # its arguments hold lists
        find_config(request.config)
    else:
        check_early(request.config, request.overrides)
    for key, _, text in (setting.partition("=") for setting in request.overrides):
        if not is_text_key(key.rpartition(".")[2]):
            continue
        if ";" in text and request.verb != "sweep":
            log.info("%s is one prompt, semicolon included; with --sweep each part would be a run of its own", key)
        file = _FILE_AS_TEXT.fullmatch(text)
        if file:
            log.warning(
                "%s=%s is taken as the prompt itself; write %s=@%s to read a file", key, text, key, file["path"] or text
            )


def _parser(table: dict[str, Verb]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=command().removeprefix("python "),
        description="3D objects from text by score distillation.",
        epilog=_EXAMPLES.format(command=command()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="YAML", help="a path, or the name of a shipped one (--list shows them)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the YAML's")
    group = parser.add_argument_group("verbs (one)")
    for verb in table.values():
        if verb.metavar:
            count = None if isinstance(verb.metavar, str) else len(verb.metavar)
            group.add_argument(f"--{verb.name}", dest=verb.name, nargs=count, metavar=verb.metavar, help=verb.summary)
        else:
            group.add_argument(f"--{verb.name}", action="store_true", help=verb.summary)
        for name, text in verb.options.items():
            group.add_argument(f"--{name}", dest=name, metavar="VALUE", help=text)
        for name, text in verb.flags.items():
            group.add_argument(f"--{name}", dest=name, action="store_true", help=text)
    parser.add_argument(
        "--list", action="store_true", help="print the registered types, one line each, and the configs"
    )
    parser.add_argument("--version", action="version", version=f"distill3d {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log more, and let libraries log")
    parser.add_argument("--gpu", metavar="N", help="as in threestudio: sets CUDA_VISIBLE_DEVICES, unless it is set")
    parser.add_argument(
        "--typecheck", action="store_true", help="as in threestudio: no effect, types are always checked"
    )
    return parser


def _verb(parser: argparse.ArgumentParser, given: argparse.Namespace, table: dict[str, Verb]) -> str:
    chosen = [name for name in table if getattr(given, name)]
    for name in chosen:
        if set(chosen) - {name} <= set(table[name].accompanies):
            return name
    if not chosen:
        return NAMES[0]
    parser.error(f"one verb at a time: --{' or --'.join(chosen)}")


def _one_line(error: BaseException) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "the GPU has not enough memory; lower data.batch_size, data.width and data.height, or use a smaller model"
        )
    if _is_of_memory(error):
        return "there is not enough memory; lower what is large: data.batch_size, widths and heights, counts of samples"
    if isinstance(error, OSError) and not isinstance(error, ConfigError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, with the nearest option."""
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            setting = unknown.lstrip("-")
            hint = f"write settings without dashes: {setting}" if "." in setting else nearest(unknown, known)
            message = f"{unknown} is not an option; {hint}"
        self.exit(2, f"error: {message} (see --help)\n")
