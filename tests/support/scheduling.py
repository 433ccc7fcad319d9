"""Which tests go to the same process when several share the work: those that share what takes seconds to make."""

#: By what they share: how their ids begin. All others are handed out one by one.
TOGETHER = {
    "the launch of two processes": ("tests/distributed/",),
    "the server of runs that can be killed": (
        "tests/runs/test_resume.py",
        "tests/cli/test_cli.py::test_ctrl_c_tells_how_to_resume",
        "tests/reproduction/test_reproduce.py::test_ctrl_c_tells_how_to_resume",
    ),
    "a reproduction": ("tests/reproduction/test_reproduce.py",),
    "wheels, and an environment of them": ("tests/docs/test_third_party.py",),
    "distributions": ("tests/docs/test_packaging.py",),
    "the sources, parsed": ("tests/source/test_architecture.py", "tests/source/test_english.py"),
    "a recipe that was followed": ("tests/model/test_embedded_recipe.py",),
    "a plugin that was written": ("tests/cli/test_new_plugin.py",),
    "adapters in stock diffusers": (
        "tests/trainer/test_trainer.py::test_the_saved_adapter_gives_the_same_image_in_stock_diffusers",
    ),
    "a judge on a server": ("tests/trainer/test_alignment_training.py",),
    "a run that nothing interrupts": (
        "tests/trainer/test_trainer.py::test_ctrl_c_leaves_a_checkpoint_that_resumes_exactly",
    ),
}


def group(nodeid):
    """What a test shares with others, or itself."""
    return next((shared for shared, starts in TOGETHER.items() if nodeid.startswith(starts)), nodeid)


def scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return Together(config, log)
