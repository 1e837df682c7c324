"""What the training views are called: a small grammar of nouns, colours, materials, relations and view words."""

from __future__ import annotations

import random
from dataclasses import dataclass

from distill3d.camera import VIEW_PHRASES

# the noun itself comes first in a caption's choice, its synonyms after
SYNONYMS: dict[str, tuple[str, ...]] = {
    "hamburger": ("burger", "cheeseburger"),
    "donut": ("doughnut",),
    "cactus in a pot": ("cactus", "potted cactus"),
    "red car": ("car", "automobile"),
    "jack-o-lantern": ("halloween pumpkin", "carved pumpkin"),
    "ice cream cone": ("ice cream",),
    "birthday cake": ("cake",),
    "red mushroom": ("mushroom", "toadstool"),
    "french fries": ("fries",),
    "christmas tree": ("decorated christmas tree",),
    "gift box": ("present", "gift"),
    "planet earth": ("earth", "globe"),
    "red barn": ("barn",),
    "pine tree": ("fir tree", "conifer"),
    "yellow taxi": ("taxi", "cab"),
    "fire truck": ("fire engine",),
    "steam locomotive": ("steam train", "locomotive"),
    "bicycle": ("bike",),
    "airplane": ("plane", "aeroplane"),
    "sailing ship": ("ship", "tall ship"),
    "tyrannosaurus rex": ("t-rex", "tyrannosaurus", "dinosaur"),
    "couch": ("sofa",),
    "treasure chest": ("chest",),
    "slice of cheese": ("cheese",),
    "traffic cone": ("road cone",),
    "red heart": ("heart",),
    "corn cob": ("corn", "ear of corn"),
    "police car": ("cop car",),
    "race car": ("racing car",),
    "spaceship": ("starship",),
    "chick": ("baby chicken",),
    "rabbit": ("bunny",),
    "wind turbine": ("wind mill turbine",),
    "skyscraper": ("office tower",),
    "stepped pyramid": ("pyramid",),
    "houseplant": ("potted plant",),
    "desk lamp": ("reading lamp",),
    "refrigerator": ("fridge",),
    "television": ("tv",),
    "wooden crate": ("crate",),
    "golden key": ("key",),
    "gold coin": ("coin",),
    "gem": ("crystal", "jewel"),
    "yellow star": ("star",),
    "smartphone": ("phone",),
    "campfire": ("bonfire",),
    "traffic light": ("stoplight",),
    "coffee mug": ("mug", "cup of coffee"),
    "frying pan": ("skillet",),
    "backpack": ("rucksack",),
    "soda can": ("can of soda",),
    "loaf of bread": ("bread",),
    "roast turkey": ("turkey",),
    "garbage truck": ("dump truck",),
    "trash can": ("garbage bin",),
    "cardboard box": ("box",),
}
# what a recoloured mesh is called when its noun already names a colour
PLAIN_NOUN = {
    "red car": "car",
    "red mushroom": "mushroom",
    "red barn": "barn",
    "yellow taxi": "taxi",
    "red heart": "heart",
    "golden key": "key",
    "gold coin": "coin",
    "yellow star": "star",
    "wooden crate": "crate",
}
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.12),
    "green": (0.15, 0.62, 0.20),
    "blue": (0.12, 0.30, 0.85),
    "purple": (0.50, 0.18, 0.70),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.42, 0.25, 0.12),
    "black": (0.08, 0.08, 0.09),
    "white": (0.94, 0.94, 0.94),
    "gray": (0.50, 0.50, 0.52),
    "turquoise": (0.15, 0.75, 0.72),
}
MATERIALS = ("stone", "wooden", "golden", "silver", "ice")
RELATIONS = ("on top of", "next to", "wearing")
WEARABLE = ("crown",)
WEARER_CATEGORIES = ("animal", "character")
WEARER_NOUNS = ("snowman", "skull", "pumpkin", "jack-o-lantern")
TEXTURELESS_SUFFIX = ", textureless"
TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a photo of {}",
    "a DSLR photo of {}",
    "a 3D model of {}",
    "a 3D render of {}",
    "a picture of {}",
    "a low poly {bare}",
)
MASS_NOUNS = ("french fries", "grapes", "cherries", "headphones", "gold bars", "pancakes", "armor", "broccoli", "sushi")


@dataclass(frozen=True)
class Thing:
    """One object of a scene: its noun, and at most one of a colour and a material that override its own."""

    noun: str
    color: str | None = None
    material: str | None = None

    def words(self, synonym: str | None = None) -> str:
        """The thing without its article, e.g. ``blue fox``."""
        override = self.color or self.material
        name = synonym or (PLAIN_NOUN.get(self.noun, self.noun) if override else self.noun)
        return f"{override} {name}" if override else name


@dataclass(frozen=True)
class SceneCaption:
    """What stands in a training scene: one thing, or two and their relation."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)

    def text(self, random_source: random.Random | None = None) -> str:
        """The caption without view words: the plain form, or with drawn synonyms."""
        first = with_article(self._named(self.first, random_source))
        if self.second is None:
            return first
        return f"{first} {self.relation} {with_article(self._named(self.second, random_source))}"

    @staticmethod
    def _named(thing: Thing, random_source: random.Random | None) -> str:
        synonyms = SYNONYMS.get(thing.noun, ())
        if random_source is None or not synonyms or random_source.random() < 0.6:
            return thing.words()
        return thing.words(random_source.choice(synonyms))


def with_article(words: str) -> str:
    """``a fox``, ``an apple``; nouns without an article stay bare."""
    if any(words.endswith(mass) for mass in MASS_NOUNS) or words.endswith(("fries", "earth")):
        return words
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def training_caption(
    scene: SceneCaption, view: str, textureless: bool, random_source: random.Random, view_probability: float = 0.6
) -> str:
    """One drawn caption: template and synonyms, most often the view's words, and the suffix of textureless views."""
    plain = scene.text(random_source)
    bare = plain.removeprefix("an ").removeprefix("a ")
    caption = random_source.choice(TEMPLATES).format(plain, bare=bare)
    if textureless and random_source.random() < 0.7:
        caption += TEXTURELESS_SUFFIX
    if random_source.random() < view_probability:
        caption += f", {VIEW_PHRASES[view]}"
    return caption


def vocabulary(nouns: list[str]) -> list[str]:
    """Every word that a caption over these nouns can hold, sorted: the prior's word list."""
    phrases = [*nouns, *COLORS, *MATERIALS, *RELATIONS, *VIEW_PHRASES.values(), TEXTURELESS_SUFFIX[2:], "a an and the"]
    phrases += [synonym for noun in nouns for synonym in SYNONYMS.get(noun, ())]
    phrases += [template.replace("{}", "").replace("{bare}", "") for template in TEMPLATES]
    words = {word for phrase in phrases for word in phrase.lower().split()}
    return sorted(words)
