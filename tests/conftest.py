import gc
import os
import sys
import tomllib

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the Hub client is imported: no test needs the network
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, as of their own

import pytest

pytest.register_assert_rewrite("support")

# torch and the like are imported where they are used: the process that hands out the tests to others needs none of it.


def pytest_configure(config):
    if config.option.markexpr == "full":
        config.option.markexpr = ""  # everything: the rows that are marked, and those that stand for them


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Marks of pytest-xdist would say beside the tests what goes together; pytest-xdist 3.8 loses them with pytest 9.2."""
    from support.scheduling import scheduler

    return scheduler(config, log)


def pytest_collection_finish():
    """Every training collects garbage: in 0.3 s where modules are searched for it, in 0.01 s where they are not."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    import torch

    torch.set_num_threads(1)  # models this small gain nothing from a second one, and lose 100x to a busy core
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_pipeline():
    """Make a tiny pipeline: 8 x 8 latents, 32 x 32 images."""
    from support import pipelines

    return pipelines.tiny_pipeline


@pytest.fixture
def run_options():
    """What a module's trainings have beyond `TINY`: modules override this."""
    return {}


@pytest.fixture
def make_trainer(tmp_path, run_options):
    """Make a trainer of the tiny pipeline in a folder of this test: `trainers.make_trainer` says what it takes."""
    import torch
    from support import pipelines, trainers

    def make(folder="run", *, model=None, **more):
        torch.manual_seed(0)  # of the pipeline: trainers of one test differ in what they are asked for alone
        model = pipelines.tiny_pipeline() if model is None else model
        return trainers.make_trainer(model, tmp_path / folder, **{**run_options, **more})

    return make


@pytest.fixture
def embedded_pipeline():
    from trainer_ext.model.loading import load_pipeline

    return load_pipeline("embedded")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Pretend that a distribution with one plugin module is installed."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def install(distribution, entry_point, source, version="1.0"):
        module = f"{distribution.replace('-', '_')}_module"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ddpo_plugins]\n{entry_point} = {module}\n")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def install_example(install):
    """Install one of the plugins in `examples`, as its own pyproject.toml says."""

    def install_example(folder):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        ((entry_point, module),) = project["entry-points"]["ddpo_plugins"].items()
        install(project["name"], entry_point, (folder / f"{module}.py").read_text(), version=project["version"])

    return install_example


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """Runs in processes that can be killed. Tests that use it stand in scheduling.py, so that there is one server of them."""
    from support.forked_runs import ForkedRuns

    runs = ForkedRuns(tmp_path_factory.mktemp("logs"))
    yield runs
    runs.close()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A tiny random encoder of texts."""
    import torch
    from support.tiny_judges import tiny_encoder

    torch.manual_seed(0)
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory):
    """A tiny random LLaVA."""
    import torch
    from support.tiny_judges import tiny_llava

    torch.manual_seed(0)
    return tiny_llava(tmp_path_factory.mktemp("llava"))
