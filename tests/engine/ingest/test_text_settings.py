"""One value for how texts are read: asked for, resolved for a model, recorded and read back."""

from datetime import date

import pytest
from headwater.engine.data.documents import Template
from headwater.engine.ingest.text_settings import MAX_LENGTH, TextSettings, text_settings_of
from headwater.engine.interface.model_view import ModelShape
from headwater.store.errors import SettingsError

SHAPE = ModelShape(8, 50, 1, 64)


def test_what_is_not_decided_has_defaults_for_the_model() -> None:
    today = date.today().isoformat()
    defaults = TextSettings(Template(), "fail", 64, "completion", False, False, "joined", today)
    assert TextSettings().resolved(SHAPE) == TextSettings(boundary="auto").resolved(SHAPE) == defaults
    assert TextSettings().resolved(ModelShape(8, 50, 1, 10**6)).length == MAX_LENGTH


def test_what_a_store_records_is_read_back() -> None:
    settings = TextSettings(Template(text="{a}"), "fail", 33, "all", True, True).resolved(SHAPE)
    assert TextSettings.from_provenance(settings.provenance()) == settings
    assert text_settings_of({"kind": "text", **settings.provenance()}) == settings
    assert text_settings_of({"kind": "arrays"}) == TextSettings()


def test_the_default_turns_are_recorded_as_none() -> None:
    unnamed, last, all_turns = (
        TextSettings(Template(turns=turns), clock="2026-01-02").provenance() for turns in (None, "last", "all")
    )
    assert unnamed == last and "turns" not in last["template"] and all_turns["template"]["turns"] == "all"


def test_what_is_decided_stays_and_the_rest_follows_the_store() -> None:
    there = TextSettings(Template(text="{a}"), "fail", 33, "all", True, True, "apart", "2026-01-02").provenance()
    asked = TextSettings(on_error="skip", max_length=20, lines=False, boundary="auto")
    completed = TextSettings(Template(text="{a}"), "skip", 20, "all", True, False, "apart", "2026-01-02")
    assert asked.completed_from(there) == completed
    older = {name: value for name, value in there.items() if name not in ("boundary", "clock")}
    assert asked.completed_from(older).boundary == "joined"
    assert TextSettings(Template(text="{b}")).completed_from(there).template == Template(text="{b}")


@pytest.mark.parametrize(
    ("length", "message"), [(65, "context of 64 tokens"), (1, "needs 2 tokens"), (0, "needs 2 tokens")]
)
def test_a_length_that_cannot_be_is_refused(length: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TextSettings(max_length=length).resolved(SHAPE)
