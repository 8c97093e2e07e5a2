"""The reference face generator: reproducible, resumable, and its labels mean what they say."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

moderngl = pytest.importorskip("moderngl", reason="the reference faces need moderngl")
pytest.importorskip("scipy", reason="the reference faces need scipy")

from reference.faces import appearance, dataset, expressions, film, rig, scene  # noqa: E402
from reference.faces.render import Renderer  # noqa: E402
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41  # noqa: E402

RECIPE = dataset.Recipe(seed=5, size=48, per_identity=3)


@pytest.fixture(scope="module")
def renderer():
    try:
        moderngl.create_context(standalone=True, backend="egl").release()
    except Exception as error:
        pytest.skip(f"no EGL: {error}")
    made = Renderer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def person():
    return appearance.sample_identity(np.random.default_rng(2), age=0.4, gender=0.3)


def _frontal(renderer, person, aus):
    return renderer.render(person, aus, scene.Pose(), scene.Light(azimuth=0.0), 64).astype(int)


def test_a_shard_depends_on_seed_and_number_only(renderer):
    first = dataset.generate(renderer, RECIPE, 3, 9)
    dataset.generate(renderer, RECIPE, 0, 2)
    again = dataset.generate(renderer, RECIPE, 3, 9)
    other = dataset.generate(renderer, RECIPE, 4, 9)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first["images"], other["images"])
    assert not set(first["identity"]) & set(other["identity"])


def test_workers_do_not_change_shards_and_existing_ones_are_kept(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 4)
    dataset.main(tmp_path, RECIPE, 8, workers=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.npz", "00001.npz"]
    with np.load(tmp_path / "00001.npz") as shard:
        # Only the identity offset knows the shard size, and a spawned worker has the real one.
        expected = dataset.generate(renderer, RECIPE, 1, 4)
        for key in set(expected) - {"identity"}:
            np.testing.assert_array_equal(shard[key], expected[key])
    stamp = time.time() - 1000
    os.utime(tmp_path / "00000.npz", (stamp, stamp))
    dataset.main(tmp_path, RECIPE, 8, workers=1)
    assert (tmp_path / "00000.npz").stat().st_mtime == pytest.approx(stamp)


def test_shards_of_another_recipe_can_be_added(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 2)
    alone = dataset.Recipe(seed=5, size=48, per_identity=3, random_share=1.0, alone=(26,))
    dataset.main(tmp_path, RECIPE, 2)
    dataset.main(tmp_path, alone, 4, first_shard=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.npz", "00001.npz", "00002.npz"]
    people = [set(np.load(file)["identity"]) for file in sorted(tmp_path.iterdir())]
    assert not people[0] & people[1] and not people[1] & people[2]
    with np.load(tmp_path / "00002.npz") as shard:
        assert (shard["label"] == -1).all()
        shown = shard["au"] > 0
    assert (shown.sum(1) == 1).all() and shown[:, OPENGRAPHAU_41.index("AU26")].all()


def test_shards_of_another_run_are_refused(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_process_renderer", lambda: renderer)
    dataset.write_shard(tmp_path, RECIPE, 0, 2)
    for recipe, count in ((RECIPE, 3), (dataset.Recipe(seed=6, size=48, per_identity=3), 2)):
        with pytest.raises(SystemExit, match=r"00000\.npz is of another run"):
            dataset.write_shard(tmp_path, recipe, 0, count)


def test_shard_keys_shapes_and_types(renderer):
    shard = dataset.generate(renderer, RECIPE, 0, 5)
    assert shard["images"].shape == (5, 48, 48, 3)
    assert shard["images"].dtype == np.uint8
    assert shard["au"].shape == (5, 41)
    assert shard["pose"].shape == (5, 3)
    assert shard["light"].shape == (5, 4)
    assert shard["label"].min() >= -1
    assert tuple(shard["au_names"]) == OPENGRAPHAU_41
    assert tuple(shard["label_names"]) == expressions.CLASSES


@pytest.mark.parametrize("au", sorted(rig.ONE_SIDED))
def test_a_left_unit_moves_the_subjects_left_which_is_the_images_right(renderer, person, au):
    rest = _frontal(renderer, person, {})
    for sides, share_on_image_right in (((1.0, 0.0), True), ((0.0, 1.0), False)):
        change = np.abs(_frontal(renderer, person, {au: sides}) - rest).sum(axis=(0, 2))
        left, right = change[:32].sum(), change[32:].sum()
        assert (right > 1.5 * left) if share_on_image_right else (left > 1.5 * right)


@pytest.mark.parametrize("au", rig.ACTION_UNITS)
def test_every_action_unit_shows(renderer, person, au):
    rest = _frontal(renderer, person, {})
    moved = _frontal(renderer, person, rig.symmetric({au: 1.0}))
    assert (np.abs(moved - rest).max(axis=2) > 20).sum() > 25


def test_no_strength_of_another_unit_shows_what_an_open_mouth_shows(renderer, person):
    rest = _frontal(renderer, person, {})
    mouth = (10, 16, 18, 20, 22, 25, 26, 27)
    change = {
        (au, strength): _frontal(renderer, person, rig.symmetric({au: strength})) - rest
        for au in mouth
        for strength in (0.25, 0.5, 0.75, 1.0)
    }
    for au in (25, 26, 27):
        own = change[au, 1.0]
        apart = {k: np.linalg.norm(own - other) for k, other in change.items() if k[0] != au}
        nearest = min(apart, key=apart.__getitem__)
        assert apart[nearest] > 0.6 * np.linalg.norm(own), (au, nearest)


def test_the_nose_casts_a_shadow_away_from_a_hard_light(renderer, person):
    def cheeks(azimuth, hardness):
        light = scene.Light(azimuth=azimuth, elevation=0.3, hardness=hardness)
        image = renderer.render(person, {}, scene.Pose(), light, 64).astype(float)[26:46]
        return image[:, 16:28].mean(), image[:, 36:48].mean()

    (left_soft, right_soft), (left_hard, right_hard) = cheeks(1.0, 0.0), cheeks(1.0, 1.0)
    assert left_soft - left_hard > 2 * (right_soft - right_hard) + 2
    (left_soft, right_soft), (left_hard, right_hard) = cheeks(-1.0, 0.0), cheeks(-1.0, 1.0)
    assert right_soft - right_hard > 2 * (left_soft - left_hard) + 2


def test_skin_of_every_ancestry_keeps_its_tone():
    tones = []
    for main in np.eye(3):
        rng = np.random.default_rng(4)
        skins = [appearance.sample_identity(rng, ancestry=main).skin.mean() for _ in range(60)]
        tones.append((min(skins), np.mean(skins), max(skins)))
    african, asian, european = tones
    assert african[2] < asian[0]
    assert asian[1] < european[1] - 0.05


def test_film_is_reproducible_and_mild():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (4, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    assert np.abs(film.develop(image, film.Film()).astype(int) - image).max() <= 1
    for _ in range(20):
        look = film.sample_film(rng)
        developed = film.develop(image, look)
        np.testing.assert_array_equal(developed, film.develop(image, look))
        assert 1 < np.abs(developed.astype(int) - image).mean() < 40


def test_au_vector_follows_the_vocabulary():
    vector = rig.au_vector({12: (0.25, 0.75), 9: (0.5, 0.5), 43: (1.0, 1.0)})
    named = dict(zip(OPENGRAPHAU_41, vector.tolist(), strict=True))
    assert vector.dtype == np.float32
    assert {name: value for name, value in named.items() if value} == {
        "AU9": 0.5,
        "AU12": 0.75,
        "L12": 0.25,
        "R12": 0.75,
    }


def test_yaw_turns_the_face_to_the_images_right():
    """The nose moves with the yaw; the eye line stays in place."""
    sockets = np.array([[-0.3, 7.28, 1.25], [0.3, 7.28, 1.25]])
    camera = scene.align(scene.Pose(yaw=0.3), sockets, np.array([0.0, 6.2, 1.3]))
    nose = camera.head_to_clip @ [0.0, 6.95, 1.7, 1.0]
    eyes = camera.head_to_clip @ [0.0, 7.28, 1.25, 1.0]
    assert nose[0] / nose[3] > 0.05
    assert eyes[:2] / eyes[3] == pytest.approx([0.0, 1 - 2 * scene.EYE_LINE])


def test_random_combinations_hold_no_antagonists():
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        aus = expressions.sample_random(rng)
        counts.append(len(aus))
        assert all(expressions.compatible(a, b) for a in aus for b in aus if a != b)
        assert not {12, 15} <= aus.keys()
        assert all(left == right for au, (left, right) in aus.items() if au not in rig.ONE_SIDED)
    assert 0.25 < np.mean(np.array(counts) == 1) < 0.45


def test_units_that_are_to_be_alone_are_and_each_as_often():
    rng = np.random.default_rng(0)
    drawn = [expressions.sample_random(rng, (12, 26)) for _ in range(300)]
    assert all(len(aus) == 1 for aus in drawn)
    numbers = [next(iter(aus)) for aus in drawn]
    assert set(numbers) == {12, 26}
    assert 0.4 < np.mean(np.array(numbers) == 26) < 0.6
    assert len({aus[26] for aus in drawn if 26 in aus}) > 100


def test_no_face_shows_a_trace_of_a_mouth_stretched_open():
    rng = np.random.default_rng(1)
    for alone in ((), (27,)):
        drawn = [expressions.sample_random(rng, alone) for _ in range(600)]
        stretched = [max(aus[27]) for aus in drawn if 27 in aus]
        assert len(stretched) > 10
        assert min(stretched) >= 0.25 and max(stretched) > 0.9


def test_jaws_fall_differently_far_and_are_pulled_alike():
    people = [appearance.sample_identity(np.random.default_rng(i)) for i in range(40)]
    jaws = [one.jaw for one in people]
    assert jaws == [one.jaw for one in people]
    assert 0.85 <= min(jaws) < 0.95 and 1.35 < max(jaws) <= 1.45
    full = {au: rig.face_units({au: (1.0, 1.0)})["jawOpen"] for au in (26, 27)}
    for jaw in (0.85, 1.45):
        assert rig.face_units({26: (1.0, 1.0)}, jaw)["jawOpen"] == pytest.approx(jaw * full[26])
        assert rig.face_units({27: (1.0, 1.0)}, jaw)["jawOpen"] == full[27]
    # Nobody's AU 26 opens the mouth as far as the least AU 27 that is drawn.
    least = rig.face_units({27: (0.25, 0.25)})
    assert 1.45 * full[26] < 0.9 * least["jawOpen"]
    # Nor is it narrow, as a stretched one is from the least on.
    most = rig.face_units({27: (1.0, 1.0)})["mouthPucker"]
    assert "mouthPucker" not in rig.face_units({26: (1.0, 1.0)})
    assert 0.6 * most < least["mouthPucker"] < most


def test_a_persons_jaw_shows_in_ones_au_26_alone(renderer, person, monkeypatch):
    shown = {}
    for jaw in (0.85, 1.45):
        monkeypatch.setattr(appearance.Identity, "jaw", jaw)
        shown[jaw] = [_frontal(renderer, person, {au: (1.0, 1.0)}) for au in (26, 27)]
    dropped, stretched = (np.abs(a - b).max() for a, b in zip(*shown.values(), strict=True))
    assert dropped > 20 and stretched == 0


def test_parted_lips_show_everyones_teeth(renderer):
    for seed in range(10):
        one = appearance.sample_identity(np.random.default_rng(seed), age=0.4)
        change = _frontal(renderer, one, {25: (1.0, 1.0)}) - _frontal(renderer, one, {})
        # Of all that lips uncover teeth alone are bluer than they.
        assert (change[40:62, 16:48, 2] > 20).sum() > 25, seed


def test_one_side_of_the_mouth_opens_it_as_far_as_the_other():
    for au in (10, 12):
        left, right = (
            rig.mouth_opening(rig.face_units({au: sides})) for sides in ((1.0, 0.0), (0.0, 1.0))
        )
        assert left == right > 0


def test_people_can_be_named_in_a_prompt():
    rng = np.random.default_rng(0)
    people = [appearance.sample_identity(rng) for _ in range(200)]
    ages = np.histogram([p.age for p in people], [0, 0.19, 0.45, 0.73, 1.01])[0]
    assert ages.min() > 30
    assert np.mean([0.25 < p.gender < 0.75 for p in people]) < 0.12
    assert 0.65 < np.mean([p.ancestry.max() > 0.75 for p in people]) < 0.9


def _of_age(age: float) -> appearance.Identity:
    ancestry = np.array([0.1, 0.1, 0.8])
    return appearance.sample_identity(
        np.random.default_rng(4), age=age, gender=0.9, ancestry=ancestry
    )


def test_middle_age_shows_in_the_face(renderer):
    faces = {age: _frontal(renderer, _of_age(age), {}) for age in (0.31, 0.44, 0.6, 0.7)}

    def change(one: float, other: float) -> float:
        return np.abs(faces[one] - faces[other]).mean()

    assert change(0.44, 0.6) > 3 * change(0.31, 0.44)
    assert change(0.44, 0.6) > 2 * change(0.6, 0.7)


def test_hair_fades_to_grey_with_age():
    def colourfulness(age: float) -> float:
        rng = np.random.default_rng(0)
        hair = [appearance.sample_identity(rng, age=age).hair for _ in range(60)]
        return float(np.mean([np.ptp(colour) / colour.max() for colour in hair]))

    young, middle, old = map(colourfulness, (0.44, 0.6, 0.9))
    assert young > 1.2 * middle > 2 * old


def test_faded_hair_is_called_grey():
    rng = np.random.default_rng(0)
    grey = {appearance.HAIR_COLORS.index(name) for name in ("grey", "white")}
    old = [appearance.sample_identity(rng, age=0.9) for _ in range(40)]
    assert np.mean([person.hair_color in grey for person in old]) > 0.9
    assert not any(appearance.sample_identity(rng, age=0.44).hair_color in grey for _ in range(40))


def test_ageing_takes_nothing_from_the_stream_of_other_people():
    after = []
    for age in (0.4, 0.6):
        rng = np.random.default_rng(9)
        appearance.sample_identity(rng, age=age)
        after.append(rng.random())
    assert after[0] == after[1]
