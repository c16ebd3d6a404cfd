from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cnerta.streamer.serving.flicker import Change, FlickerWatch
from cnerta.streamer.serving.metrics import ServerMetrics

Drive = Callable[..., Any]


def seen(watch: FlickerWatch, driver: Any) -> list[Change]:
    """What the driver's next messages change."""
    return [c for m in driver.run() if (c := watch.see(m)) is not None]


def test_what_changes_after_it_was_shown_is_flicker(drive: Drive, kit: SimpleNamespace) -> None:
    driver, watch = drive().audio(kit.speak("他在北京")), FlickerWatch()
    assert seen(watch, driver.transcript("他在北京", 1)) == []
    assert len(watch) == 1
    driver.model.lexicon["北京"] = "PER"
    assert seen(watch, driver.transcript("他在北京的", 2)) == [Change("relabel", "tentative")]
    for message in driver.wait(1.0):  # stable by its age
        watch.see(message)
    assert seen(watch, driver.transcript("他在北方的", 3)) == [Change("retraction", "stable")]
    assert len(watch) == 0


def test_the_watch_forgets_an_utterance_with_its_final(drive: Drive, kit: SimpleNamespace) -> None:
    driver, watch = drive().audio(kit.speak("他在北京")), FlickerWatch()
    seen(watch, driver.transcript("他在北京", 1))
    assert len(watch) == 1
    assert seen(watch, driver.transcript("他在北京", 2, final=True)) == []
    assert len(watch) == 0


def test_flicker_is_a_metric(drive: Drive, kit: SimpleNamespace) -> None:
    metrics = ServerMetrics(name="fake", device="fake", count_sessions=lambda: 1)
    driver, watch = drive().audio(kit.speak("他在北京")), FlickerWatch()
    for revision, text in enumerate(("他在北京", "他在北方", "他在北京"), 1):
        for message in driver.transcript(text, revision, final=revision == 3).run():
            metrics.on_sent(message, watch)
    told = metrics.exposition().decode()
    assert 'cnerta_entity_changes_total{change="retraction",status="tentative"} 1.0' in told
    assert "cnerta_final_entities_total 1.0" in told
