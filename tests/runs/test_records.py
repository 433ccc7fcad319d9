"""The records of a run: one schema over all files, and none that is damaged stops a run."""

import json

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from support.synthetic_runs import SyntheticRun
from support.trainers import brightness, checkpoints, logs_of

from ddpo_plugins.errors import RewardError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.report.facts import RunFacts
from trainer_ext.rollouts import collector
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.records import numbered, write_records
from trainer_ext.runs.summary import RunSummary

GARBAGE = b"PAR1 and then the machine went down"


def write_series(folder, *columns, name="mine/x"):
    """Write files whose records have a column with these values."""
    for index, values in enumerate(columns):
        records = [{"rollout": index, "reward": None, **({} if value is ... else {name: value})} for value in values]
        write_records(folder / f"rollout-{index:05d}.parquet", records)


def read_together(folder, cache):
    """Return the records of all files by pyarrow and by datasets, which must agree."""
    table = pyarrow.dataset.dataset(folder, format="parquet").to_table()
    assert list(load_dataset("parquet", data_dir=str(folder), split="train", cache_dir=str(cache))) == table.to_pylist()
    return table


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (([None, None], ["a", None]), pa.string()),
        ((["a", None], [None, None]), pa.string()),
        (([None, None], [1.0, 2.0], [None, None]), pa.float64()),
        (([1, 2], [1.5, None]), pa.float64()),
        (([...], ["a"], [...]), pa.string()),
        (([[]], [["a"]]), pa.list_(pa.string())),
        (([[], None], [None, [[1.0]]], [None, None]), pa.list_(pa.list_(pa.float64()))),
        (([None], [None]), pa.null()),
    ],
)
def test_files_of_a_run_are_read_together(tmp_path, columns, kind):
    folder = tmp_path / "rollouts"
    write_series(folder, *columns)
    table = read_together(folder, tmp_path / "cache")
    expected = [None if value is ... else value for values in columns for value in values]
    assert table["mine/x"].to_pylist() == expected
    assert table.schema.field("mine/x").type == kind
    assert len({pq.read_schema(file) for file in folder.glob("*.parquet")}) == 1


def test_columns_of_the_trainer_have_one_type_whatever_is_in_them(tmp_path):
    missing = {
        "updates": None,
        "rollouts": 1,
        "seed": None,
        "prompt": None,
        "reward": None,
        "rewards/x": None,
        "detectors/y": 1,
    }
    write_records(tmp_path / "update-00000.parquet", [{"rollout": 0, **missing}])
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "update-00000.parquet")}
    assert types == {
        **{"rollout": "int64", "updates": "int64", "rollouts": "double", "seed": "int64", "prompt": "string"},
        **{"reward": "double", "rewards/x": "double", "detectors/y": "double"},
    }


@pytest.mark.parametrize("values", [["a"], [[1.0]]])
def test_a_type_that_does_not_fit_names_the_column(tmp_path, values):
    """In one process, the reward's call of log_extra is refused; here, an earlier process logged another type."""
    with pytest.raises(
        RewardError, match="rollout-00001.parquet cannot be recorded beside .*mine/x.*log_extra has one type"
    ):
        write_series(tmp_path, [1.0], values)
    assert [file.name for file in tmp_path.iterdir()] == ["rollout-00000.parquet"]


def test_processes_that_log_different_types_name_the_column(tmp_path):
    records = [{"rollout": 0, "mine/x": 1.0}, {"rollout": 0, "mine/x": "a"}]
    with pytest.raises(
        RewardError, match="The column 'mine/x' cannot be recorded: .*log_extra has one type in the whole run"
    ):
        write_records(tmp_path / "rollout-00000.parquet", records)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_while_it_wrote_files_again(tmp_path):
    write_series(tmp_path, [None], [None])
    old = (tmp_path / "rollout-00000.parquet").read_bytes()
    write_series(tmp_path, [None], [None], ["a"])
    (tmp_path / "rollout-00000.parquet").write_bytes(old)
    write_records(tmp_path / "rollout-00003.parquet", [{"rollout": 3, "reward": None, "mine/x": None}])
    assert {str(pq.read_schema(file).field("mine/x").type) for file in tmp_path.iterdir()} == {"string"}


def test_only_files_of_the_series_are_looked_at(tmp_path):
    others = ["rollout-copy.parquet", "rollout-00001 (1).parquet", "update-00000.parquet", "7.parquet", "rollout-2.txt"]
    for other in others:
        (tmp_path / other).write_bytes(GARBAGE)
    write_series(tmp_path, [1.0])
    assert list(numbered(tmp_path, "rollout-")) == [0]
    assert {(tmp_path / other).read_bytes() for other in others} == {GARBAGE}


def test_a_damaged_file_is_left_out_with_a_warning(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    write_series(tmp_path / "rollouts", [1.0], [2.0])
    folder.rollout_file(0).write_bytes(GARBAGE)
    write_records(folder.rollout_file(2), [{"rollout": 2, "reward": 3.0, "mine/x": None}])
    write_records(folder.rollout_file(3), [{"rollout": 3, "reward": 4.0, "mine/x": None}])
    assert (
        len([text for text in caplog.messages if "rollout-00000.parquet cannot be read and is left out" in text]) == 1
    )
    assert [record["rollout"] for record in folder.records()] == [1, 2, 3]
    assert {index: values.tolist() for index, values in folder.rewards().items()} == {1: [], 2: [3.0], 3: [4.0]}
    folder.sample_file(0).parent.mkdir()
    folder.sample_file(0).write_bytes(b"")
    write_records(folder.sample_file(7), [{"updates": 7, "reward": 1.0}])
    assert [sheet.updates for sheet in folder.samples()] == [7]


def test_a_damaged_file_is_named_once_however_often_it_is_read(tmp_path, caplog):
    folder = SyntheticRun(evaluations=3, rollouts=2).write(tmp_path)
    damaged = [folder.evaluation_file("seen", 2), folder.rollout_file(1), folder.sample_file(0)]
    for file in damaged:
        file.write_bytes(GARBAGE)
    for _ in range(2):
        RunSummary.of(folder)
        assert len(RunFacts.read(folder.path).records) == 8
    assert [sum(str(file) in text for text in caplog.messages) for file in damaged] == [1, 1, 1]
    damaged[1].write_bytes(GARBAGE + b" again")
    folder.records()
    assert sum(str(damaged[1]) in text for text in caplog.messages) == 2, "it was written again"


# In a training


def test_rewards_that_are_missing_now_and_then(make_trainer, tmp_path):
    """As found: a reward without a value in one rollout, a number here and a fraction there, a text that comes late."""
    calls = []

    def late(images, prompts, log_extra, **columns):
        calls.append(images)
        rollout = (len(calls) - 1) // 2
        log_extra("late/count", [1, 2] if rollout == 0 else [0.5, 1.5])
        log_extra("late/text", [None, None] if rollout == 0 else prompts)
        if rollout == 1:
            log_extra("late/only", [1, None])
        return [None, None] if rollout == 0 else [1.0, None]

    trainer = make_trainer(reward=[brightness, late], num_train_epochs=3)
    trainer.train()
    table = read_together(trainer.args.folder / "rollouts", tmp_path / "cache")
    assert table["rewards/late"].to_pylist() == [None] * 4 + [1.0, None] * 4
    assert table["late/count"].to_pylist() == [1.0, 2.0] * 2 + [0.5, 1.5] * 4
    assert table["late/only"].to_pylist() == [None] * 4 + [1.0, None] * 2 + [None] * 4
    assert table["late/text"].to_pylist()[:4] == [None] * 4
    assert set(table["late/text"].to_pylist()[4:]) == {"a cat", "a dog"}


def test_a_rollout_that_cannot_be_recorded_leaves_a_checkpoint(make_trainer, monkeypatch):
    def write(file, records):
        if file.stem.endswith("1"):
            raise OSError("no such device")
        write_records(file, records)

    monkeypatch.setattr(collector, "write_records", write)
    trainer = make_trainer(num_train_epochs=2)
    with pytest.raises(OSError, match="no such device"):
        trainer.train()
    assert checkpoints(trainer.args.folder) == ["checkpoint-1"]


def test_damaged_descriptions_stop_no_resume(make_trainer, caplog):
    """As found: the run could never be resumed, and its adapter never reached the folder."""
    options = {"num_sample_images": 1, "sample_every": 1}
    make_trainer(**options, save_strategy="epoch").train()
    trainer = make_trainer(**options, num_train_epochs=2)
    folder = RunFolder(trainer.args.folder)
    damaged = [folder.setup_file, folder.rollout_file(0), folder.sample_file(0)]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:40])
    (folder.path / "rollouts" / "rollout-copy.parquet").write_bytes(GARBAGE)
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    assert (folder.path / LORA_FILE).is_file()
    assert len(logs_of(trainer, "loss")) == 2
    for file in damaged:
        assert any(str(file) in text for text in caplog.messages), file
    (setup,) = json.loads(folder.setup_file.read_text())["runs"]
    assert setup["from_update"] == 1
    assert list(folder.rewards()) == [1]
