import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from ddpo_plugins import GuidanceSpec
from trainer_ext.errors import GuidanceError, PipelineError
from trainer_ext.policy.guidance.candidates import candidate_rules, resolve_rule
from trainer_ext.policy.guidance.inference import infer_guidance
from trainer_ext.policy.guidance.rules import GUIDANCE_RULES

KNOWN = (tuple(GUIDANCE_RULES.values()),)
SCALE = 4.5
ARGUMENTS = {"guidance_scale": SCALE, "guidance_rescale": 0.7, "height": 64}

# What pipelines write, restated: from conditional and unconditional outputs to the prediction.
PIPELINES = {
    "cfg": lambda c, u: u + SCALE * (c - u),
    "cfg_from_cond": lambda c, u: c + SCALE * (c - u),
    "cfg_summed": lambda c, u: (SCALE + 1) * c - SCALE * u,
    "cfg_rescaled": lambda c, u: rescale_noise_cfg(u + SCALE * (c - u), c, guidance_rescale=0.7),
    "cfg_renormed": lambda c, u: (
        torch.nn.functional.normalize(u + SCALE * (c - u), dim=-1) * c.norm(dim=-1, keepdim=True)
    ),
}


def only(guidance):
    return candidate_rules(resolve_rule(guidance), (), object)


def branches(dtype=torch.float32, channels=4):
    return torch.randn(2, 3, channels, 8, 8).to(dtype).unbind()


def fresh_error(guidance, compute, dtype=torch.float32):
    """Of the inferred rule, on outputs that it was not inferred from."""
    cond, uncond = branches(dtype)
    outputs = (cond, uncond) if guidance.cond_first else (uncond, cond)
    return guidance.error(outputs, compute(cond, uncond))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cond_first", [True, False])
@pytest.mark.parametrize("name", PIPELINES)
def test_rule_and_conventions_are_inferred(name, cond_first, sign):
    cond, uncond = branches()
    outputs = (cond, uncond) if cond_first else (uncond, cond)
    guidance = infer_guidance(KNOWN, outputs, sign * PIPELINES[name](cond, uncond), ARGUMENTS)
    assert (guidance.name, guidance.cond_first, guidance.sign, guidance.scale) == (name, cond_first, sign, SCALE)
    assert fresh_error(guidance, lambda c, u: sign * PIPELINES[name](c, u)) < 1e-5


@pytest.mark.parametrize("in_float32", [True, False])
@pytest.mark.parametrize("name", ["cfg", "cfg_rescaled"])
def test_precision_of_the_combination_is_inferred(name, in_float32):
    """The two differ by a rounding, which is more than a clip range."""

    def compute(cond, uncond):
        outputs = (cond.float(), uncond.float()) if in_float32 else (cond, uncond)
        return PIPELINES[name](*outputs)

    cond, uncond = branches(torch.bfloat16)
    guidance = infer_guidance(KNOWN, (uncond, cond), compute(cond, uncond), ARGUMENTS)
    assert (guidance.name, guidance.in_float32) == (name, in_float32)
    assert fresh_error(guidance, compute, torch.bfloat16) == 0


def test_one_output_is_no_guidance():
    (output, _) = branches()
    guidance = infer_guidance(KNOWN, (output,), output, ARGUMENTS)
    assert guidance.name == "none"
    assert torch.equal(guidance((output,), 4), output)
    assert infer_guidance(KNOWN, (output,), -output, ARGUMENTS).sign == -1


def test_a_predicted_variance_is_dropped():
    cond, uncond = branches(channels=8)
    guidance = infer_guidance(KNOWN, (uncond, cond), PIPELINES["cfg"](cond, uncond)[:, :4], ARGUMENTS)
    assert torch.equal(guidance((uncond, cond), 4), PIPELINES["cfg"](cond, uncond)[:, :4])


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_rescaling_is_that_of_diffusers(rescale):
    cond, uncond = branches()
    guided = uncond + SCALE * (cond - uncond)
    ours = GUIDANCE_RULES["cfg_rescaled"].rule((cond, uncond), SCALE, {"guidance_rescale": rescale})
    torch.testing.assert_close(ours, rescale_noise_cfg(guided, cond, rescale), rtol=0, atol=0)


def test_without_rescaling_the_plain_rule_is_chosen():
    cond, uncond = branches()
    guidance = infer_guidance(KNOWN, (uncond, cond), PIPELINES["cfg"](cond, uncond), {"guidance_scale": SCALE})
    assert guidance.name == "cfg"


@pytest.mark.parametrize(
    "arguments",
    [
        {"guidance_scale": SCALE},
        {"guidance_scale": 1.0, "true_cfg_scale": SCALE},
        {"guidance_scale": SCALE, "true_cfg_scale": 1.0},
        {"guidance_scale": None, "true_cfg_scale": SCALE},
    ],
)
def test_the_scale_is_read_from_the_arguments(arguments):
    cond, uncond = branches()
    guidance = infer_guidance(KNOWN, (uncond, cond), PIPELINES["cfg"](cond, uncond), arguments)
    assert (guidance.name, guidance.scale) == ("cfg", SCALE)


def test_a_rule_of_ones_own():
    def perp(outputs, guidance_scale, arguments):
        cond, uncond = outputs
        along = (cond * uncond).sum() / uncond.square().sum() * uncond
        return uncond + guidance_scale * (cond - along) + arguments["height"]

    cond, uncond = branches()
    expected = perp((cond, uncond), SCALE, ARGUMENTS)
    with pytest.raises(GuidanceError, match="No guidance rule of cfg, cfg_from_cond,"):
        infer_guidance(KNOWN, (uncond, cond), expected, ARGUMENTS)
    guidance = infer_guidance(only(perp), (uncond, cond), expected, ARGUMENTS)
    assert (guidance.name, guidance.cond_first) == ("custom", False)
    assert torch.equal(guidance((uncond, cond), 4), expected)


def test_a_named_rule_is_the_only_candidate():
    cond, uncond = branches()
    with pytest.raises(GuidanceError, match=r"No guidance rule of cfg_renormed explains .*\(2 denoiser output"):
        infer_guidance(only("cfg_renormed"), (uncond, cond), PIPELINES["cfg"](cond, uncond), ARGUMENTS)


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(
        GuidanceError,
        match=r"'cgf'. Known: none, cfg, cfg_from_cond, cfg_summed, cfg_rescaled, cfg_renormed. Leave `guidance` out",
    ):
        resolve_rule("cgf")


def test_no_rule_fits():
    cond, uncond = branches()
    almost = PIPELINES["cfg"](cond, uncond)
    almost = almost + 1e-3 * almost.abs().max() * torch.sign(torch.randn(3, 4, 8, 8))
    with pytest.raises(GuidanceError, match=r"the best, cfg, has a relative error of 1e-03, allowed 1e-05") as caught:
        infer_guidance(KNOWN, (uncond, cond), almost, ARGUMENTS)
    assert isinstance(caught.value, PipelineError)


def test_two_outputs_of_which_one_is_thrown_away():
    """Nothing of `GUIDANCE_RULES` ignores a branch, so the scale in the arguments is not the one in use."""
    cond, uncond = branches()
    with pytest.raises(GuidanceError, match="No guidance rule"):
        infer_guidance(KNOWN, (uncond, cond), cond, ARGUMENTS)


def test_equal_branches_say_nothing():
    """A denoiser that ignores its prompt fits every rule; which one is right shows up only after it has learned."""
    (output, _) = branches()
    with pytest.raises(
        GuidanceError, match=r"Several guidance rules .*the prompt does not change them. Pass `guidance=`"
    ) as caught:
        infer_guidance(KNOWN, (output, output.clone()), output, ARGUMENTS)
    assert "cfg_from_cond" in str(caught.value)


# Rules of strangers


def limited(outputs, guidance_scale, arguments):
    cond, uncond = outputs
    guided = cond + guidance_scale * (cond - uncond)
    return guided * arguments.get("limit", 1.0)


class Painter:
    pass


class FastPainter(Painter):
    pass


LIMITED = GuidanceSpec("limited", limited, pipelines=("Painter",))


def test_a_rule_for_the_class_is_tried_without_being_asked_for():
    cond, uncond = branches()
    expected = limited((cond, uncond), SCALE, {"limit": 0.5})
    arguments = {"guidance_scale": SCALE, "limit": 0.5}
    for kind in (Painter, FastPainter):
        guidance = infer_guidance(candidate_rules(None, [LIMITED], kind), (uncond, cond), expected, arguments)
        assert (guidance.name, guidance.cond_first) == ("limited", False)
    with pytest.raises(GuidanceError, match="No guidance rule"):
        infer_guidance(candidate_rules(None, [LIMITED], dict), (uncond, cond), expected, arguments)


def test_a_rule_for_another_class_is_used_when_it_is_asked_for():
    cond, uncond = branches()
    expected = limited((cond, uncond), SCALE, {"limit": 0.5})
    tiers = candidate_rules(resolve_rule("limited", [LIMITED]), [LIMITED], dict)
    assert infer_guidance(tiers, (cond, uncond), expected, {"guidance_scale": SCALE, "limit": 0.5}).name == "limited"


def test_a_rule_for_the_class_wins_over_built_in_ones_that_fit_too():
    """They may agree at first and differ later: a limit that is not reached yet."""
    cond, uncond = branches()
    expected = PIPELINES["cfg_from_cond"](cond, uncond)
    assert (
        infer_guidance(candidate_rules(None, [LIMITED], Painter), (cond, uncond), expected, ARGUMENTS).name == "limited"
    )


def test_where_the_rule_for_the_class_does_not_fit_the_built_in_ones_are_tried():
    cond, uncond = branches()
    expected = PIPELINES["cfg"](cond, uncond)
    assert infer_guidance(candidate_rules(None, [LIMITED], Painter), (cond, uncond), expected, ARGUMENTS).name == "cfg"


def test_a_name_that_is_built_in_is_not_a_plugins():
    with pytest.raises(GuidanceError, match="'cfg' is built in, and a plugin offers another by that name. Rename"):
        resolve_rule("cfg", [GuidanceSpec("cfg", limited)])
    with pytest.raises(GuidanceError, match=r"'cgf'. Known: none, .*, limited\."):
        resolve_rule("cgf", [LIMITED])


def test_a_rule_of_three_branches():
    def between(outputs, guidance_scale, arguments):
        both, text, nothing = outputs
        return nothing + guidance_scale * (text - nothing) + 2 * (both - text)

    three = [*branches(), torch.randn(3, 4, 8, 8)]
    expected = -between(three, SCALE, {})
    spec = GuidanceSpec("between", between, pipelines=("Painter",), num_outputs=3)
    guidance = infer_guidance(candidate_rules(None, [spec], Painter), three[::-1], expected, ARGUMENTS)
    assert (guidance.name, guidance.sign, guidance.cond_first) == ("between", -1, False)
    with pytest.raises(GuidanceError, match=r"makes 3 denoiser output\(s\) a step, for which .*\(none: 1, cfg: 2"):
        infer_guidance(KNOWN, three, expected, ARGUMENTS)
    assert infer_guidance(candidate_rules(None, [spec], Painter), three[:1], three[0], ARGUMENTS).name == "none"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            lambda outputs, guidance_scale, arguments: outputs[2],
            r"'custom' failed with IndexError.*called with 2 output",
        ),
        (lambda cond, uncond: cond, r"'custom' failed with TypeError.*\(3, 4, 8, 8\) and guidance_scale=4.5"),
        (lambda outputs, guidance_scale, arguments: 0.5, "'custom' failed with TypeError"),
        (
            lambda outputs, guidance_scale, arguments: outputs[0].mean(0, keepdim=True),
            r"returned a prediction \(1, 4, 8, 8\) .* the pipeline's is \(3, 4, 8, 8\)",
        ),
        (lambda outputs, guidance_scale, arguments: outputs[0] * float("nan"), "relative error of nan"),
    ],
)
def test_a_rule_that_does_not_do_what_a_rule_does(rule, message):
    cond, uncond = branches()
    with pytest.raises(GuidanceError, match=message) as caught:
        infer_guidance(only(rule), (cond, uncond), cond, ARGUMENTS)
    assert "def rule(outputs, guidance_scale, arguments):" in str(caught.value)


@pytest.mark.parametrize("between", [0, 1, 2])
def test_the_function_in_the_message_is_classifier_free_guidance(between):
    cond, uncond = branches()
    outputs = (cond, *[torch.zeros_like(cond)] * between, uncond)
    with pytest.raises(GuidanceError) as caught:
        infer_guidance(KNOWN, outputs, cond * uncond, ARGUMENTS)
    lines = str(caught.value).splitlines()
    names = {}
    exec("\n".join(line[4:] for line in lines if line.startswith("    ")), names)
    assert torch.equal(names["rule"](outputs, SCALE, {}), PIPELINES["cfg"](cond, uncond))
    assert "guidance=rule" in str(caught.value)
    assert "ddpo_register_guidance" in str(caught.value)


def test_a_rule_that_changes_its_outputs_changes_its_own():
    """Or the candidates that are tried after it, and the recorded outputs, would be others."""

    def in_place(outputs, guidance_scale, arguments):
        cond, uncond = outputs
        return cond.sub_(uncond).mul_(guidance_scale).add_(uncond)

    cond, uncond = branches()
    before = cond.clone(), uncond.clone()
    guidance = infer_guidance(only(in_place), (uncond, cond), PIPELINES["cfg"](cond, uncond), ARGUMENTS)
    assert (guidance.cond_first, guidance.sign) == (False, 1)
    assert torch.equal(cond, before[0])
    assert torch.equal(uncond, before[1])


def changes_the_dtype(outputs, guidance_scale, arguments):
    torch.set_default_dtype(torch.float16)
    return outputs[0]


def changes_arguments(outputs, guidance_scale, arguments):
    arguments["guidance_scale"] = 1.0
    return outputs[0]


def leaves(outputs, guidance_scale, arguments):
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (changes_the_dtype, "'custom' changed torch's default dtype from torch.float32 to torch.float16"),
        (changes_arguments, "'custom' failed with TypeError: 'mappingproxy' object does not support item assignment"),
        (leaves, "'custom' failed with SystemExit: 0"),
    ],
)
def test_a_rule_that_changes_what_is_not_its_own(rule, message):
    with pytest.raises(GuidanceError, match=message):
        infer_guidance(only(rule), branches(), branches()[0], ARGUMENTS)
    assert torch.get_default_dtype() == torch.float32
