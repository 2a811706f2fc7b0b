"""A run and its stages: what a loop reports reaches the run, and a request to stop reaches the loop."""

from headwater.engine.runtime.run import SILENT_STAGE, Progress, Run


def test_a_stage_reports_to_its_run_under_its_own_name() -> None:
    reports: list[Progress] = []
    stage = Run(on_progress=reports.append).stage("scores", 20, "rows")
    stage.report(5)
    stage.report(20, "rows, 3 blocks")
    assert reports == [Progress("scores", 5, 20, "rows"), Progress("scores", 20, 20, "rows, 3 blocks")]


def test_a_stage_stops_with_its_run() -> None:
    requests = [False, True]
    stage = Run(should_stop=lambda: requests.pop(0)).stage("scores", None)
    assert not stage.should_stop() and stage.should_stop()
    assert not SILENT_STAGE.should_stop()
