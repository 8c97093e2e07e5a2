"""What readers say of groups of images."""

from __future__ import annotations

from synfer_rt.jobs.evaluation.readers import Groups


def test_groups_are_of_the_words_of_a_template() -> None:
    words = {"hair": {"brown": 1.0, "dark brown": 1.0}, "hat": {"cap": 1.0, "": 1.0}}
    groups = Groups({"template": "a {hair} head, {hat}", "attributes": words})
    prompts = ("a dark brown head, cap", "a brown head", "a brownish head")
    groups.add(
        [
            {
                "requested_label": "happy",
                "prompt": prompt,
                "accepted": prompt != "a brown head",
                "probabilities": {"happy": 1.0},
            }
            for prompt in prompts
        ]
    )
    found = groups.result()
    assert found is not None
    hair = {word: one["images"] for word, one in found["groups"]["hair"].items()}
    assert hair == {"dark brown": 1, "brown": 1, "(not named)": 1}
    assert found["groups"]["hair"]["brown"]["share"] == 0
    assert found["groups"]["hat"]["cap"]["images"] == 1
    assert Groups({}).result() is None
