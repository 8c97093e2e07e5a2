"""Identities: head shape, age, gender, ancestry, and the colours of skin, hair and eyes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reference.faces import head, scene

ANCESTRIES = ("african", "asian", "european")
_TARGET_ANCESTRY = ("african", "asian", "caucasian")

HAIR_COLORS = (
    "black", "dark brown", "brown", "light brown", "blond", "red", "grey", "white",
)  # fmt: skip
_HAIR_RGB = np.array(
    [
        (0.035, 0.030, 0.028), (0.09, 0.055, 0.035), (0.17, 0.095, 0.055), (0.30, 0.19, 0.10),
        (0.60, 0.44, 0.25), (0.42, 0.15, 0.06), (0.42, 0.41, 0.40), (0.70, 0.69, 0.67),
    ]
)  # fmt: skip
_GREY = HAIR_COLORS.index("grey")
HAIR_STYLES = ("bald", "cropped", "short", "long")

_SKIN_RGB = np.array(
    [
        (0.90, 0.735, 0.655), (0.84, 0.655, 0.545), (0.74, 0.555, 0.435),
        (0.60, 0.425, 0.315), (0.45, 0.305, 0.225), (0.32, 0.215, 0.165),
    ]
)  # fmt: skip
"""Skin from the least to the most melanin, evenly spaced in 0..1."""
_MELANIN = np.array([(0.60, 1.0), (0.15, 0.42), (0.0, 0.30)])
"""Range of melanin by ancestry."""
_IRIS_RGB = np.array(
    [
        (0.12, 0.06, 0.03), (0.20, 0.11, 0.05), (0.06, 0.035, 0.025),
        (0.25, 0.33, 0.42), (0.24, 0.30, 0.18), (0.36, 0.40, 0.42),
    ]
)  # fmt: skip
_EUROPEAN_IRIS = (0.25, 0.20, 0.05, 0.22, 0.15, 0.13)
_IRIS = (0.50, 0.20, 0.27, 0.01, 0.02, 0.0)
"""Frequencies of the iris colours, for people of mostly European ancestry and for others."""

# Spread and number of detail targets drawn per folder.
_DETAIL = {
    "head": (0.28, 4), "eyes": (0.24, 5), "nose": (0.35, 7), "mouth": (0.22, 6),
    "chin": (0.30, 4), "cheek": (0.38, 3), "forehead": (0.35, 2), "eyebrows": (0.18, 2),
}  # fmt: skip
_SKIPPED_DETAIL = (
    # Shapes that would open the mouth or pass for an expression.
    "lowerlip-middle-down", "upperlip-middle-up", "lowerlip-ext-down", "upperlip-ext-up",
    "upperlip-height-decr", "mouth-angles", "mouth-trans-up", "eyebrows-angle-down",
    "eyebrows-trans-down", "height2-decr", "height1-decr", "height3-decr",
    # Shapes that displace the head.
    "trans-in", "trans-out", "head-angle", "trans-forward", "trans-backward", "head-trans",
    "head-age",
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """One person. Colours are sRGB-like triples in 0..1.

    seed: drives the noise of skin and hair. age: 0 child .. 0.33 young .. 1 old.
    gender: 0 female .. 1 male. ancestry: [3] weights in the order of ANCESTRIES.
    shape: target name -> weight. rest: face units that act in every image of the person.
    hair_style, hair_color: index into HAIR_STYLES, HAIR_COLORS. hairline, hair_volume: dm.
    brow: thickness, arch, offset (dm), opacity. lip_opacity, beard, wrinkle, roughness: 0..1.
    eye_shadow: 0..1.3.
    """

    seed: int
    age: float
    gender: float
    ancestry: np.ndarray
    shape: dict[str, float]
    rest: dict[str, float]
    skin: np.ndarray
    hair: np.ndarray
    hair_style: int
    hair_color: int
    hairline: float
    hair_volume: float
    fringe: bool
    brow: np.ndarray
    brow_rgb: np.ndarray
    iris: np.ndarray
    pupil: float
    lip: np.ndarray
    lip_opacity: float
    beard: float
    tooth: np.ndarray
    wrinkle: float
    roughness: float
    blush: float
    cloth: np.ndarray
    eye_shadow: float

    @property
    def jaw(self) -> float:
        """How far AU 26 lets this jaw fall, as a multiple of the usual distance."""
        return float(np.random.default_rng([self.seed, 2]).uniform(0.85, 1.45))


def ageing(age: float) -> float:
    """How far a face has aged: 0 up to an age of .45, about half in middle age, 1 at 1."""
    return float(np.interp(age, (0.45, 0.55, 0.70, 0.76, 1.0), (0.0, 0.42, 0.52, 0.74, 1.0)))


def _macro_shape(
    age: float, gender: float, ancestry: np.ndarray, weight: float, muscle: float
) -> dict[str, float]:
    """Multilinear MakeHuman macro targets; weight and muscle in -1..1."""
    child = max(0.0, 1 - age / 0.25)
    old = 0.7 * ageing(age)  # the full target narrows the eyes and hides surprise
    ages = {"child": child, "young": 1 - child - old, "old": old}
    genders = {"female": 1 - gender, "male": gender}
    muscles, weights = (
        {f"min{k}": max(0.0, -v), f"average{k}": 1 - abs(v), f"max{k}": max(0.0, v)}
        for k, v in (("muscle", muscle), ("weight", weight))
    )
    shape = {}
    for g, wg in genders.items():
        for a, wa in ages.items():
            for name, wr in zip(_TARGET_ANCESTRY, ancestry, strict=True):
                shape[f"macro/{name}-{g}-{a}"] = wg * wa * float(wr)
            for m, wm in muscles.items():
                for w, ww in weights.items():
                    shape[f"macro/universal-{g}-{a}-{m}-{w}"] = wg * wa * wm * ww
    return {name: w for name, w in shape.items() if w > 0}


def average_shape() -> dict[str, float]:
    """The shape of a young adult midway between the genders and ancestries."""
    return _macro_shape(0.4, 0.5, np.full(3, 1 / 3), 0.0, 0.0)


def _detail_shape(rng: np.random.Generator) -> dict[str, float]:
    """Random facial features, nearly symmetric."""
    names = head.load().target_index
    shape = {}
    for folder, (spread, count) in _DETAIL.items():
        choices = [
            name
            for name in names
            if name.startswith(f"{folder}/")
            and not name.startswith(f"{folder}/r-")
            and not any(part in name for part in _SKIPPED_DETAIL)
        ]
        for name in rng.choice(choices, min(count, len(choices)), replace=False):
            weight = min(abs(rng.normal(0, spread)), 0.6)
            if "eyebrows-angle" in name:
                weight *= 0.35
            shape[str(name)] = weight
            if "/l-" in name:
                shape[str(name).replace("/l-", "/r-")] = weight * rng.uniform(0.9, 1.1)
    return shape


def sample_age(rng: np.random.Generator) -> float:
    """Child, young, middle-aged and old equally often."""
    bounds = ((0.0, 0.16), (0.22, 0.42), (0.48, 0.70), (0.76, 1.0))
    return float(rng.uniform(*bounds[rng.integers(4)]))


def sample_gender(rng: np.random.Generator) -> float:
    """Clearly female (< .25) or male (> .75), except for one person in twenty."""
    if rng.random() < 0.05:
        return float(rng.uniform(0.25, 0.75))
    value = rng.beta(1, 5) * 0.25
    return float(value if rng.random() < 0.5 else 1 - value)


def sample_ancestry(rng: np.random.Generator) -> np.ndarray:
    """Weights [3]; one of them above .75 for three quarters of the people."""
    if rng.random() < 0.25:
        return rng.dirichlet([1.5, 1.5, 1.5])
    main = rng.uniform(0.76, 1.0)
    ancestry = (1 - main) * np.insert(rng.dirichlet([1, 1]), 0, 0)
    ancestry[0] = main
    return np.roll(ancestry, rng.integers(3))


def _skin(rng: np.random.Generator, ancestry: np.ndarray) -> np.ndarray:
    """Melanin sets the tone; blood reddens it, carotene yellows it."""
    melanin = float(ancestry @ (_MELANIN[:, 0] + np.ptp(_MELANIN, axis=1) * rng.random(3)))
    steps = np.linspace(0, 1, len(_SKIN_RGB))
    tone = np.array([np.interp(melanin, steps, channel) for channel in _SKIN_RGB.T])
    red, yellow = rng.normal(0, 0.025), rng.normal(0.02 * ancestry[1], 0.018)
    return (
        tone * (1 + np.array([red, -red + 0.3 * yellow, -red - yellow])) * rng.uniform(0.94, 1.06)
    )


def _hair_color(rng: np.random.Generator, age: float, european: float) -> int:
    if age > 0.75 and rng.random() < 0.75:
        return int(rng.choice([6, 7]))
    if european > 0.5:
        p = [0.16, 0.20, 0.20, 0.15, 0.19, 0.10, 0, 0]
    else:
        p = [0.55, 0.30, 0.08, 0.03, 0.02, 0.02, 0, 0]
    return int(rng.choice(8, p=p))


def _aged(person: Identity) -> Identity:
    """The person with signs of age: grey, receding hair, pale cheeks, dark rings below the eyes.

    Young people stay the same. The random draws are from a stream of the person's own.
    """
    aged = ageing(person.age)
    if aged == 0:
        return person
    rng = np.random.default_rng([person.seed, 1])
    grey = 0.0 if person.hair_color >= _GREY else float(np.clip(rng.normal(aged, 0.12), 0, 1))
    receding = 0.14 * aged * rng.random() if person.gender > 0.5 else 0.0

    def faded(colour: np.ndarray, share: float) -> np.ndarray:
        return colour + share * (_HAIR_RGB[_GREY] * 1.15 - colour)

    return replace(
        person,
        hair=faded(person.hair, grey),
        hair_color=_GREY if grey > 0.5 else person.hair_color,
        brow_rgb=faded(person.brow_rgb, 0.5 * grey),
        hairline=person.hairline - receding,
        eye_shadow=person.eye_shadow + 0.4 * aged,
        blush=person.blush * (1 - 0.4 * aged),
        roughness=min(1.0, person.roughness + 0.5 * aged),
    )


def _hair_style(rng: np.random.Generator, male: bool, age: float) -> int:
    shares = [0.09, 0.33, 0.55, 0.03] if male else [0.0, 0.06, 0.24, 0.70]
    if male and age < 0.3:
        shares = [0.0, 0.35, 0.6, 0.05]
    return int(rng.choice(4, p=shares))


def _hairline(rng: np.random.Generator, male: bool, age: float) -> float:
    hairline = rng.uniform(-0.08, 0.12)
    if male and age > 0.75 and rng.random() < 0.5:
        hairline -= 0.12
    return float(hairline)


def _beard(rng: np.random.Generator, gender: float, age: float) -> float:
    if gender <= 0.6 or age <= 0.28:
        return 0.0
    grown = [0.0, rng.uniform(0.1, 0.35), rng.uniform(0.5, 0.9)]
    return float(rng.choice(grown, p=[0.5, 0.25, 0.25]))


def _lips(rng: np.random.Generator, male: bool, age: float) -> np.ndarray:
    """The colour of the lips, which some women paint."""
    if not male and age > 0.2 and rng.random() < 0.35:
        return np.array([rng.uniform(0.6, 0.85), rng.uniform(0.18, 0.3), rng.uniform(0.22, 0.35)])
    return np.array([rng.uniform(0.78, 0.98), *rng.uniform(0.5, 0.68, 2)])


def _brow(rng: np.random.Generator, male: bool) -> np.ndarray:
    """Thickness, arch, offset and opacity."""
    return np.array(
        [
            rng.uniform(0.020, 0.036) * (1.15 if male else 0.85),
            rng.uniform(0.0, 0.035),
            rng.uniform(0.0, 0.03),
            rng.uniform(0.6, 0.95),
        ]
    )


def _rest(rng: np.random.Generator) -> dict[str, float]:
    return {
        "eyeWide": rng.uniform(0.02, 0.16),
        "mouthSmile": rng.uniform(0.08, 0.20),
        "brow-raise": rng.uniform(0.0, 0.15),
        "jawOpen": rng.uniform(0, 0.02),
    }


def sample_identity(
    rng: np.random.Generator,
    *,
    age: float | None = None,
    gender: float | None = None,
    ancestry: np.ndarray | None = None,
) -> Identity:
    """A random person with the given age, gender and ancestry, or with random ones."""
    age = sample_age(rng) if age is None else age
    gender = sample_gender(rng) if gender is None else gender
    ancestry = sample_ancestry(rng) if ancestry is None else np.asarray(ancestry, float)
    male = gender > 0.5
    weight, muscle = np.clip(rng.normal(0, (0.45, 0.4)), -1, 1)
    shape = _macro_shape(age, gender, ancestry, weight, muscle)
    for name, value in _detail_shape(rng).items():
        shape[name] = shape.get(name, 0.0) + value

    skin = _skin(rng, ancestry)
    hair_color = _hair_color(rng, age, float(ancestry[2]))
    hair = np.clip(_HAIR_RGB[hair_color] * rng.uniform(0.85, 1.15), 0, 1)
    style = _hair_style(rng, male, age)
    hairline = _hairline(rng, male, age)
    beard = _beard(rng, gender, age)
    brow_darkening = rng.uniform(0.5, 0.95) if hair.mean() < 0.35 else rng.uniform(0.35, 0.65)
    lip = _lips(rng, male, age)
    # The order of the fields is that of the random draws.
    person = Identity(
        seed=int(rng.integers(1 << 31)),
        age=float(age),
        gender=float(gender),
        ancestry=ancestry,
        shape=shape,
        rest=_rest(rng),
        skin=np.clip(skin, 0.05, 0.95),
        hair=hair,
        hair_style=style,
        hair_color=hair_color,
        hairline=hairline,
        hair_volume=float(rng.uniform(0.03, 0.14)),
        fringe=bool(style >= 2 and rng.random() < 0.12),
        brow=_brow(rng, male),
        brow_rgb=hair * brow_darkening,
        iris=_IRIS_RGB[rng.choice(6, p=_EUROPEAN_IRIS if ancestry[2] > 0.5 else _IRIS)],
        pupil=float(rng.uniform(0.13, 0.19)),
        lip=lip,
        lip_opacity=float(rng.uniform(0.45, 0.85)),
        beard=beard,
        tooth=np.array([0.92, 0.89, 0.82]) * rng.uniform(0.85, 1.0),
        wrinkle=float(rng.uniform(0.5, 1.15)) if rng.random() > 0.08 else 0.0,
        roughness=float(rng.uniform(0.3, 1)),
        cloth=np.array(scene.sample_color(rng, 0.05, 0.85)),
        blush=float(rng.uniform(0.2, 1)),
        eye_shadow=float(rng.uniform(0.1, 0.9)),
    )
    return _aged(person)
