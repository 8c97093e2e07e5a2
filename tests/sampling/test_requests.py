"""Requests are a pure function of the seed and the index."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.sampling.requests import Request, check, make_requests
from synfer_rt.vocabulary import facs, prompts
from tests import tiny_bundle as tiny


def test_a_request_depends_on_seed_and_index_alone(tiny_bundle):
    requests, again = make_requests(tiny_bundle, seed=3), make_requests(tiny_bundle, seed=3)
    forwards = requests[:40]
    backwards = [again[i] for i in reversed(range(40))][::-1]
    assert forwards == backwards


def test_another_seed_asks_for_other_images(tiny_bundle):
    one, other = make_requests(tiny_bundle, seed=1), make_requests(tiny_bundle, seed=2)
    differing = [one[i].prompt != other[i].prompt for i in range(20)]
    assert sum(differing) >= 18


@pytest.mark.parametrize("count", [1, 7, 8, 50])
def test_labels_are_balanced_at_any_count(tiny_bundle, count):
    counts = Counter(r.label for r in make_requests(tiny_bundle)[:count])
    every = [counts[label] for label in tiny_bundle.classes]
    assert max(every) - min(every) <= 1


def test_labels_are_those_asked_for_in_their_order(tiny_bundle):
    requests = make_requests(tiny_bundle, labels=["sad", "happy"])
    assert [r.label for r in requests[:4]] == ["sad", "happy", "sad", "happy"]


def test_prompts_vary_and_name_the_expression(tiny_bundle):
    made = make_requests(tiny_bundle)[:64]
    assert len({r.prompt for r in made}) > 55
    for request in made:
        assert any(word in request.prompt for word in prompts.EXPRESSION_WORDS[request.label])


def test_aus_vary_and_belong_to_the_expression(tiny_bundle):
    made = make_requests(tiny_bundle, labels=["happy", "neutral"])[:60]
    happy = [r.aus for r in made if r.label == "happy"]
    assert all(aus["AU12"] > 0.4 for aus in happy)
    assert len({tuple(aus.items()) for aus in happy}) > 20
    assert all(r.aus == {} for r in made if r.label == "neutral")


def test_a_given_prompt_is_every_images_prompt(tiny_bundle):
    made = make_requests(tiny_bundle, prompt="a photo of a man")[:16]
    assert {r.prompt for r in made} == {"a photo of a man"}
    assert len({tuple(r.aus.items()) for r in made}) > 8


def test_given_aus_are_every_images_aus(tiny_bundle):
    made = make_requests(tiny_bundle, aus={"AU12": 0.8, "AU6": 1})[:16]
    assert all(r.aus == {"AU12": 0.8, "AU6": 1.0} for r in made)
    given: Any = {"au12": np.float32(0.75), "AU6": 1, "L12": 0}
    made = make_requests(tiny_bundle, aus=given)[:3]
    assert all(r.aus == {"AU12": 0.75, "AU6": 1.0, "L12": 0.0} for r in made)
    nothing: list[Any] = [{}, None]
    assert all(make_requests(tiny_bundle, aus=x).aus is None for x in nothing)


def test_a_layout_is_of_a_face_like_the_one_described(tiny_bundle):
    bank = tiny_bundle.layouts
    requests = make_requests(tiny_bundle)
    rows = list(zip(bank.age, bank.gender, bank.ancestry, strict=True))
    met = 0
    for index in range(300):
        request = requests[index]
        uniforms = prompts_uniforms(requests.seed, index)
        drawn = prompts.draw(uniforms)
        words = (drawn.age, drawn.gender, drawn.ancestry)
        if words in rows:
            assert request.layout is not None
            met += 1
            assert rows[request.layout] == words
    assert met > 20


def prompts_uniforms(seed, index):
    from synfer_rt.diffusion import noise

    return noise.uniform(seed, index, prompts.DRAWS, "request")


def test_a_face_without_its_like_starts_from_any_row(tiny_bundle):
    layouts = Counter(r.layout for r in make_requests(tiny_bundle)[:300])
    assert set(layouts) == set(range(len(tiny_bundle.layouts)))


def test_with_a_given_prompt_every_row_is_as_likely(tiny_bundle):
    requests = make_requests(tiny_bundle, prompt="a photo of a face")
    layouts = Counter(r.layout for r in requests[:600])
    assert all(60 < layouts[row] < 140 for row in range(6))


def test_without_the_bank_there_is_no_layout(tiny_bundle):
    requests = make_requests(tiny_bundle, layout="none")
    assert all(r.layout is None for r in requests[:8])


def test_defaults_are_the_bundles(tiny_bundle):
    request = make_requests(tiny_bundle)[0]
    assert (request.guidance, request.au_scale, request.negative_prompt) == (2.0, 1.0, "")
    request = make_requests(tiny_bundle, guidance=1.5, au_scale=0.0, negative_prompt="x")[0]
    assert (request.guidance, request.au_scale, request.negative_prompt) == (1.5, 0.0, "x")


@pytest.mark.parametrize("scale", [0, 0.0, -0.0, 0.5, 1, np.float32(0.25)])
def test_guidance_up_to_1_is_none_and_recorded_as_1(tiny_bundle, scale: Any):
    requests = make_requests(tiny_bundle, guidance=scale)
    assert (requests.guidance, requests[0].guidance) == (1.0, 1.0)
    assert Request(0, 0, "happy", "", "", {}, scale, 1.0, None).guidance == 1.0


def test_a_model_that_embeds_guidance_has_no_negative_prompt(tiny_bundle):
    bundle = replace(tiny_bundle, manifest={**tiny_bundle.manifest, "guidance_embedding": True})
    assert bundle.guidance_embedding and not tiny_bundle.guidance_embedding
    assert make_requests(bundle, negative_prompt="")[0].negative_prompt == ""
    with pytest.raises(UserError, match=r"embeds guidance .* `negative_prompt`; leave it out"):
        make_requests(bundle, negative_prompt="blurry")
    request = make_requests(tiny_bundle, negative_prompt="blurry")[0]
    check(request, tiny_bundle)
    with pytest.raises(UserError, match="no branch for a `negative_prompt`"):
        check(request, bundle)


def test_a_bundles_default_guidance_of_0_is_none(tiny_bundle):
    defaults = replace(tiny_bundle.defaults, guidance=0.0)
    assert make_requests(replace(tiny_bundle, defaults=defaults))[0].guidance == 1.0


def test_a_model_without_aus_is_not_given_any(tmp_path):
    bundle = tiny.build(tmp_path, with_aus=False)
    assert make_requests(bundle)[1].aus == {}
    with pytest.raises(UserError, match="without action units"):
        make_requests(bundle, aus={"AU12": 1.0})


def test_a_vocabulary_without_sides_is_told_the_stronger_side(tiny_bundle):
    from dataclasses import replace

    requests = make_requests(tiny_bundle, labels=["contempt"])
    sided = [requests[i].aus for i in range(20)]
    whole = replace(requests, au_names=facs.vocabulary("bp4d-12"))
    for aus, request in zip(sided, whole[:20], strict=True):
        assert set(request.aus) <= set(facs.vocabulary("bp4d-12"))
        assert request.aus["AU14"] == pytest.approx(max(aus["L14"], aus["R14"]))


def test_a_vocabulary_in_lower_case_is_told_its_aus(tiny_bundle):
    from dataclasses import replace

    requests = make_requests(tiny_bundle, labels=["happy"])
    names = tuple(name.lower() for name in tiny_bundle.au_names)
    for request in replace(requests, au_names=names)[:8]:
        assert request.aus["au12"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["hapy"]}, "nearest of this model is happy"),
        ({"aus": {"AU12": "much"}}, "AU12 must be a number from 0 to 1, got 'much'"),
        ({"guidance": float("nan")}, "`guidance` must be from 0 to 1000, got nan"),
        ({"guidance": 1e308}, "`guidance` must be from 0 to 1000"),
        ({"au_scale": float("inf")}, "`au_scale` must be from -1000 to 1000, got inf"),
        ({"seed": -1}, "`seed` must be from 0 to .*, got -1"),
        ({"seed": 2**63}, "`seed` must be from 0 to"),
        ({"layout": "Bank"}, """`layout` must be "bank" or "none", got 'Bank'"""),
        ({"prompt": "\udcff"}, "`prompt` cannot be encoded as UTF-8"),
        (
            {"prompt": "a face", "aus": {"AU12": 1}},
            r'`prompt` and `aus` .* such as `labels=\["neutral"\]`',
        ),
        ({"labels": ["happy", "sad", "happy"]}, "`labels` contains happy twice"),
        ({"labels": ["happy", "happiness"]}, "`labels` contains happy twice"),
        ({"labels": "happy"}, "`labels` must be .* a list of labels .*, got 'happy'"),
        ({"labels": "happy,sad"}, "`labels` must be .*, got 'happy,sad'"),
        ({"labels": ["happy", "happy"]}, "`labels` contains happy twice"),
        ({"labels": 3}, '`labels` must be "all" or a list .*, got 3'),
        ({"labels": [3]}, r"`labels` must be .*, got \[3\]"),
        ({"labels": b"happy"}, "`labels` must be .*, got b'happy'"),
        ({"labels": []}, "`labels` is empty"),
        ({"aus": "AU12=0.8"}, "`aus` must be a mapping .*, got 'AU12=0.8'"),
        ({"aus": b"AU12"}, "`aus` must be a mapping .*, got b'AU12'"),
        ({"aus": 12}, "`aus` must be a mapping .*, got 12"),
        ({"aus": {"AU12": "0.8"}}, "AU12 must be a number from 0 to 1, got '0.8'"),
        ({"aus": {"AU12": True}}, "AU12 must be a number from 0 to 1, got True"),
        ({"aus": {"AU12": None}}, "AU12 must be a number from 0 to 1, got None"),
        ({"aus": {"AU12": 1.5}}, "AU12 must be from 0 to 1, got 1.5"),
        ({"aus": {"AU12": float("nan")}}, "AU12 must be from 0 to 1, got nan"),
        ({"aus": {"AU121": 0.5}}, "nearest of this model is AU12"),
        ({"aus": {"AU12": 0.5, "au12": 0.8}}, "`aus` contains AU12 twice"),
        ({"aus": []}, r"`aus` must be a mapping .*, got \[\]"),
        ({"aus": ["AU12=0.8"]}, "`aus` must be a mapping .*, got"),
        ({"aus": [("AU12", 0.8)]}, "`aus` must be a mapping .*, got"),
        ({"guidance": "3"}, "`guidance` must be a number, got '3'"),
        ({"guidance": True}, "`guidance` must be a number, got True"),
        ({"guidance": -1}, "`guidance` must be from 0 to 1000, got -1"),
        ({"guidance": [3.0]}, "must be a number"),
        ({"au_scale": "1"}, "`au_scale` must be a number, got '1'"),
        ({"seed": 1.0}, "`seed` must be a whole number from 0 to .*, got 1.0"),
        ({"seed": "1"}, "`seed` must be a whole number from 0 to .*, got '1'"),
        ({"seed": True}, "`seed` must be a whole number from 0 to .*, got True"),
        ({"seed": None}, "`seed` must be a whole number from 0 to .*, got None"),
        ({"photos": -1}, "`photos` must be from 0 to .*, got -1"),
        ({"layout": ["bank"]}, "`layout` must be"),
        ({"layout": False}, "`layout` must be"),
        ({"prompt": 5}, "`prompt` must be a text, got 5"),
        ({"prompt": ["a face"]}, "must be a text"),
        ({"negative_prompt": b"x"}, "`negative_prompt` must be a text, got b'x'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(tiny_bundle, options, said):
    with pytest.raises(UserError, match=said):
        make_requests(tiny_bundle, **options)


def test_labels_may_be_a_list(tiny_bundle):
    requests = make_requests(tiny_bundle, labels=["Sad", "happiness"])
    assert requests.labels == ("sad", "happy")


def test_numpy_numbers_become_pythons(tiny_bundle):
    given: Any = {"seed": np.int64(3), "au_scale": np.float32(0.5), "guidance": np.int8(2)}
    requests = make_requests(tiny_bundle, **given)
    values = (requests.seed, requests.au_scale, requests.guidance)
    assert values == (3, 0.5, 2.0) and [type(x) for x in values] == [int, float, float]
    four: Any = np.uint8(4)
    again = make_requests(tiny_bundle, seed=3, au_scale=0.5, guidance=2)
    assert requests[four] == again[4]
    wrong: list[Any] = [True, 1.0, "1"]
    for index in wrong:
        with pytest.raises(UserError, match="must be a whole number"):
            requests[index]


def test_what_is_no_bundle_is_refused(tiny_bundle_path: Any):
    with pytest.raises(UserError, match="`bundle` must be a bundle, as open_bundle returns it"):
        make_requests(tiny_bundle_path)


def test_a_label_goes_by_any_of_its_names(tiny_bundle):
    requests = make_requests(tiny_bundle)
    assert requests.with_label(3, "Happiness") == requests.with_label(3, "happy")
    with pytest.raises(UserError, match="nearest of this model is happy"):
        requests.with_label(3, "hapy")
    for several in ("all", "fear,sad"):
        with pytest.raises(UserError, match=f"Unknown label '{several}'"):
            requests.with_label(3, several)
    number: Any = 3
    with pytest.raises(UserError, match="`label` must be a text, got 3"):
        requests.with_label(3, number)


def test_a_slice_is_the_list_of_its_requests(tiny_bundle):
    requests = make_requests(tiny_bundle)
    assert requests[:3] == [requests[0], requests[1], requests[2]]
    assert requests[2:7:2] == [requests[2], requests[4], requests[6]]
    assert requests[3:3] == []


@pytest.mark.parametrize(
    "index", [-1, slice(-2, 3), slice(None, -1), slice(0, 4, 0), slice(3, None)]
)
def test_an_index_below_0_and_a_slice_without_an_end_are_refused(tiny_bundle, index):
    with pytest.raises(UserError, match=r"-1|-2|step|have no end"):
        make_requests(tiny_bundle)[index]


def test_without_action_units_one_prompt_shows_one_expression(tmp_path):
    bundle = tiny.build(tmp_path / "plain", with_aus=False)
    with pytest.raises(UserError, match=r'without action units .* such as `labels=\["neutral"\]`'):
        make_requests(bundle, prompt="a face")
    (request,) = make_requests(bundle, prompt="a sad face", labels=["sad"])[:1]
    assert (request.label, request.aus) == ("sad", {})


def test_several_are_the_same_as_each(tiny_bundle):
    several: tuple[dict[str, Any], ...] = (
        {},
        {"layout": "none"},
        {"prompt": "a photo", "labels": ["sad"]},
        {"photos": 3},
    )
    for changes in several:
        requests = make_requests(tiny_bundle, seed=2**63 - 1, **changes)
        indices = [5, 0, 2**62, 7]
        assert requests.of(indices) == [requests[index] for index in indices]
        labels = ["happy", "sad", "sad", "happy"]
        assert requests.of(indices, labels) == list(map(requests.with_label, indices, labels))
