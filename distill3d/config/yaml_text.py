"""YAML in which any text is a valid prompt.

Keys called ``prompt``, ``*_prompt`` or ``prompt_*`` hold text for people, so what follows the colon is taken verbatim:
``prompt: a cat: sitting``, ``prompt: 2077`` and ``prompt: a cat # hat`` mean what they say. Only a properly quoted
scalar, a block scalar (``|``, ``>``), nothing at all (null) and the missing marker ``???`` keep their YAML meaning.
Everything else is safe YAML, with floats such as ``1e-3`` read as numbers, ``None`` as null, and a key given twice as
an error. What YAML 1.1 alone takes for a number is text: ``1:30`` (90 there) and ``010`` (8 there, 10 in YAML 1.2).
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

MISSING = "???"

_TEXT_KEY = re.compile(r"(?!use_|view_dependent_)(\w+_)?prompt|prompt_(?!processor|debiasing|library)\w+")
_LINE = re.compile(r"(?P<indent>[ ]*)(?P<dash>(?:-[ ]+)*)(?P<key>\w+)[ ]*:[ ]+(?P<value>\S.*)")
_BLOCK_HEADER = re.compile(r"(.*:|-)?\s*[|>][+-]?\d*[+-]?\s*(#.*)?")
_BLANK = " \t\r\n"  # YAML's own; other white space is text
_BREAK = re.compile("[\n\r\x7f-\x9f\u2028\u2029\ufeff]")  # what YAML folds, or refuses to read raw
_BLOCK = re.compile(r"[|>][+-]?\d*[+-]?([ ]+#.*)?(\n|$)")
_QUOTED = re.compile(r"""("(?:[^"\\]|\\[\s\S])*"|'(?:[^']|'')*')\s*(\s#.*)?""")
_FLOAT = re.compile(
    r"""[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+([eE][-+]?[0-9]+)?"""
    r"""|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")


def is_text_key(key: Any) -> bool:
    """Whether a key's value is taken verbatim."""
    return isinstance(key, str) and _TEXT_KEY.fullmatch(key) is not None


def parse_yaml(text: str) -> Any:
    """The content of a YAML document; raises yaml.YAMLError."""
    return _load(_quote_texts(text))


def parse_value(key: str, text: str) -> Any:
    """The value of a ``key=text`` argument; ``key`` is the last part of the dotted name. Raises yaml.YAMLError."""
    return text if is_text_key(key) else _load(text)


def _load(text: str) -> Any:
    """Whatever is wrong with the text is a YAMLError, also what the values of its tags make of it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deep") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise yaml.YAMLError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def dump_yaml(content: Any) -> str:
    """YAML that `parse_yaml` reads back as the same content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def escape(text: str) -> str:
    """Text that OmegaConf resolves to itself, whatever ``${`` and backslashes it holds."""
    return re.sub(r"(\\*)\$\{", lambda match: match.group(1) * 2 + r"\${", text)


def _quote_texts(text: str) -> str:
    """Rewrite the plain scalars of text keys, with their continuation lines, as quoted scalars."""
    lines, out, i = text.split("\n"), [], 0
    while i < len(lines):
        line, end = lines[i].rstrip("\r"), i + 1
        match = _LINE.fullmatch(line)
        if _BLOCK_HEADER.fullmatch(line.strip()):
            end = _deeper(lines, i, _indent(line))
        elif match and is_text_key(match["key"]):
            end = _deeper(lines, i, len(match["indent"]) + len(match["dash"]))
            value = "\n".join([match["value"], *lines[i + 1 : end]]).strip(_BLANK)
            if not _has_yaml_meaning(value):
                out.append(f"{match['indent']}{match['dash']}{match['key']}: {_quote(value)}")
                i += 1  # the rest is left blank, so that line numbers in YAML's own errors stay right
                out += [""] * (end - i)
                i = end
                continue
        out += lines[i:end]
        i = end
    return "\n".join(out)


def _quote(value: str) -> str:
    words = " ".join(part.strip(_BLANK) for part in value.split("\n") if part.strip(_BLANK))
    return _BREAK.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(words, ensure_ascii=False))


def _has_yaml_meaning(value: str) -> bool:
    return value == MISSING or _QUOTED.fullmatch(value) is not None or _BLOCK.match(value) is not None


def _deeper(lines: list[str], start: int, indent: int) -> int:
    """The index after the lines that belong to line ``start``: the more deeply indented ones, blank ones between."""
    end = start + 1
    for i in range(start + 1, len(lines)):
        if lines[i].strip(_BLANK):
            if _indent(lines[i]) <= indent:
                break
            end = i + 1
    return end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


MAX_NODES = 100_000  # of one document, with those counted again that an alias repeats


def _check_size(root: yaml.Node) -> None:
    """Raise YAMLError for aliases that stand for millions of values, or for what holds them."""
    sizes: dict[int, int] = {}
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        inside = node.value if isinstance(node.value, list) else []
        parts = [part for item in inside for part in (item if isinstance(item, tuple) else (item,))]
        if is_done:
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MAX_NODES:
                raise yaml.YAMLError(f"it has more than {MAX_NODES} values, with its aliases written out")
        elif sizes.setdefault(id(node), MAX_NODES) is MAX_NODES:  # too many, if it is met again inside itself
            stack.append((node, True))
            stack += [(part, False) for part in parts if id(part) not in sizes]


class _Loader(yaml.SafeLoader):
    def construct_document(self, node: Any) -> Any:
        _check_size(node)
        return super().construct_document(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        self.flatten_mapping(node)
        mapping: dict = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no key", key_node.start_mark)
            if key in mapping:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            if is_text_key(key) and isinstance(value_node, yaml.ScalarNode):
                absent = value_node.style is None and not value_node.value
                mapping[key] = None if absent else value_node.value
            else:
                mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key_node, value_node in node.value:
            if is_text_key(key_node.value) and value_node.tag == "tag:yaml.org,2002:null":
                value_node.value = ""  # the word null would be a prompt
        return node


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAK.search(text) else None)


def _construct_yaml_map(loader: _Loader, node: yaml.MappingNode) -> Any:
    mapping: dict = {}
    yield mapping
    mapping.update(loader.construct_mapping(node))


def _without(resolvers: dict, tags: set[str]) -> dict:
    return {first: [(t, r) for t, r in pairs if t not in tags] for first, pairs in resolvers.items()}


_DROPPED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"}
_Loader.yaml_implicit_resolvers = _without(yaml.SafeLoader.yaml_implicit_resolvers, _DROPPED)
_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_yaml_map)
for _resolver_class in (_Loader, _Dumper):
    _resolver_class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    _resolver_class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _resolver_class.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None"), ["N"])
_Dumper.add_representer(str, _represent_text)
