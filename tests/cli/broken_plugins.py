"""Plugins that are wrong in one way each, and what `equivengine plugin check` must say of them."""

from __future__ import annotations

from dataclasses import dataclass

from sound_plugins import BACKEND, DATASET, PROBE

#: The place where most of the faults go.
PLAIN = "        return Net()\n"


def changed(body: str) -> str:
    """The sound plugin with another `module` method."""
    return BACKEND.replace(PLAIN, body)


def variant(forward: str) -> str:
    """The sound plugin with another ``forward(self, x)`` of the network."""
    return changed(
        f"""        import torch

        class Variant(Net):
            def forward(self, x):
                {forward}

        return Variant()
"""
    )


@dataclass(frozen=True)
class Fault:
    """One broken plugin.

    Attributes:
        source: Code of its module.
        requirement: The requirement that must fail.
        says: Words that the explanation must hold.
        masked: Whether the engine makes good for it, so that the plugin works all the same.
    """

    source: str
    requirement: str
    says: tuple[str, ...]
    masked: bool = False


FAULTS = {
    "wrong_shape": Fault(
        variant("return super().forward(x)[..., None]"),
        "returns_one_embedding_per_input",
        ("[3, 5, 1]", "[3, n] for 3 inputs", "pool or flatten"),
    ),
    "dropout_on": Fault(
        BACKEND.replace(".eval()", ".train()"),
        "is_in_eval_mode",
        ("handed over in training mode: drop (Dropout)", "The engine calls eval() itself", "call .eval()"),
        masked=True,
    ),
    "detached_graph": Fault(
        variant("return super().forward(x.detach()).detach()"),
        "lets_gradients_through",
        ("no gradient reaches the input", "no path in the graph", "detach()"),
    ),
    "normalises_twice": Fault(
        variant(
            "mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))\n"
            "                return super().forward((x - mean.to(x)) / std.to(x))"
        ),
        "normalises_once",
        ("normalized twice", "subtracts the declared mean and divides by the declared std", "take one of the two away"),
        masked=True,
    ),
    "float16_output": Fault(
        variant("return super().forward(x).half()"),
        "keeps_the_dtype",
        ("torch.float16", "torch.float32", ".half()"),
    ),
    "in_place": Fault(
        variant("return super().forward(x.mul_(2))"),
        "keeps_its_input",
        ("changes its input in place", "The engine hands over a copy", "values changed"),
        masked=True,
    ),
    "random_output": Fault(
        variant("return super().forward(x) + torch.rand(5)"),
        "is_deterministic",
        ("two different embeddings", "torch.rand"),
    ),
    "tuple_output": Fault(
        variant("return super().forward(x), x"),
        "returns_one_tensor",
        ("does not return one tensor", "tuple of 2", "wrap it in a torch.nn.Module"),
    ),
    "torch_hub": Fault(
        changed(
            "        import torch\n"
            "        return torch.hub.load('equivengine-nobody/nothing', 'net', trust_repo=True)\n"
        ),
        "loads_offline",
        ("reaches for the network", "torch.hub.load('equivengine-nobody/nothing', 'net')", "plugin_torch_hub.py, line"),
    ),
    "missing_metadata": Fault(
        BACKEND.replace('    summary = "an encoder of 8 x 8 images"\n', "").replace('    examples = ("NAME",)\n', ""),
        "describes_itself",
        ("Broken has no summary", "equivengine ls"),
        masked=True,
    ),
    "wrong_api": Fault(
        BACKEND.replace("(1, 0)", "(7, 0)"),
        "plugin_loads",
        ("not written for this version of the plugin contract", "got EQUIVENGINE_API = (7, 0)"),
    ),
    "exits_at_import": Fault("import sys\nsys.exit(4)\n", "plugin_loads", ("it called sys.exit(4)",)),
    # -- beyond the dozen ---------------------------------------------------------------------------------------------
    "imports_torch": Fault(
        "from torch.hub import load\n" + BACKEND,
        "imports_lightly",
        ("imports torch", "into the functions"),
        masked=True,
    ),
    "ignores_options": Fault(
        BACKEND.replace("        uri.allow_options(())\n", ""),
        "refuses_unknown_options",
        ("an unknown option passes unnoticed", "allow_options"),
        masked=True,
    ),
    "other_weights_each_time": Fault(
        BACKEND.replace("manual_seed(0)", "manual_seed(torch.initial_seed() + torch.randint(9**9, (1,)).item())"),
        "loads_the_same",
        ("different weights", "seeded by the address"),
        masked=True,
    ),
    "half_weights": Fault(
        changed("        return Net().half()\n"), "weights_are_float32", ("torch.float16", "load them in float32"), True
    ),
    "batch_mean": Fault(
        variant("return super().forward(x - x.mean(0))"), "embeds_each_input_alone", ("what else is in the batch",)
    ),
    "hides_nan": Fault(
        variant("return super().forward(torch.nan_to_num(x))"),
        "shows_nan",
        ("an input of NaN has an embedding of numbers", "nan_to_num"),
        masked=True,
    ),
    "nan_when_flat": Fault(
        variant("return super().forward(x) / (x.flatten(1).std(1, keepdim=True) > 1e-6)"),
        "stays_finite",
        ("NaN or infinity", "division"),
        masked=True,
    ),
    "straight_through": Fault(
        variant("return super().forward(x + ((x * 2).round() / 2 - x).detach())"),
        "agrees_with_differences",
        ("differs from central differences", "straight-through"),
        masked=True,
    ),
    "float32_constants": Fault(
        variant("return super().forward(x) @ torch.eye(5, dtype=torch.float32)"),
        "runs_in_float64",
        ("cannot be converted to float64", "constant.to(x.dtype)"),
        masked=True,
    ),
    "normalises_outside": Fault(
        BACKEND.replace(
            "preprocessing=eqv.Preprocessing(size=(8, 8), mean=mean, std=std)",
            "input_shape=(3, 8, 8), preprocessing=lambda image: (eqv.Preprocessing(size=(8, 8))(image) - 0.5) / 0.25",
        ),
        "preprocesses_samples",
        ("outside of the declared input range", "leave normalization to the graph"),
        masked=True,
    ),
    "turns_colours_around": Fault(
        BACKEND.replace(
            "preprocessing=eqv.Preprocessing(size=(8, 8), mean=mean, std=std)",
            "input_shape=(3, 8, 8), preprocessing=lambda image: eqv.Preprocessing(size=(8, 8))(image).flip(0)",
        ),
        "gives_levels_back",
        ("a red image is not red", "channel 2"),
        masked=True,
    ),
    "statistics_of_levels": Fault(
        BACKEND.replace("(0.4, 0.5, 0.6), (0.2, 0.25, 0.3)", "(123.7, 116.3, 103.5), (58.4, 57.1, 57.4)"),
        "normalises_once",
        ("none of pixels in [0, 1]", "123.7", "divide both by 255"),
        masked=True,
    ),
}

#: The twelve that issue 8 names.
DOZEN = list(FAULTS)[:12]

#: They end or stop the process that they run in. The second one brings an image set too, which is sound.
LOST = {
    "ends_the_process": ("import os\nos._exit(5)\n", ("exited with code 5",)),
    "crashes": (
        changed("        import ctypes\n        return ctypes.string_at(0)\n") + DATASET.replace("Broken", "Images"),
        ("ended by SIGSEGV", "plugin_crashes.py, line", "in module", "image set 'crashes', on crashes"),
    ),
    "hangs": (
        "while True:\n    pass\n",
        ("did not finish within 8 s", "plugin_hangs.py, line", "in <module>", "endless loop"),
    ),
}

_RUN = "        length = float("
PROBE_FAULTS = {
    "no_description": (PROBE.replace(', description="Size of the step; pixel."', ""), "describes_its_parameters"),
    "no_unit_of_parameter": (PROBE.replace("Size of the step; pixel.", "How far."), "describes_its_parameters"),
    "required": (PROBE.replace("Field(1e-3, ", "Field("), "has_defaults"),
    "no_result": (PROBE.replace("return eqv.ProbeResult(", "return dict("), "returns_a_result"),
    "no_unit": (PROBE.replace('length, "embedding"', 'length, ""'), "names_units"),
    "headline": (
        PROBE.replace(
            "    def run(",
            "    @classmethod\n    def headlines(cls, params):\n        return {'lenght': 'length'}\n\n    def run(",
        ),
        "names_units",
    ),
    "nan": (PROBE.replace("Scalar(length", "Scalar(float('nan')"), "measures_numbers"),
    "half_a_yes": (
        PROBE.replace('(length, "embedding", ', '(binary=True, value=0.5, unit="1", description='),
        "returns_a_result",
    ),
    "global_random": (PROBE.replace(_RUN, "        length = np.random.rand() + float("), "is_repeatable"),
    "single_only": (
        PROBE.replace(_RUN, "        assert task.precision == 'fp32'\n        length = float("),
        "runs_in_both_precisions",
    ),
    "writes_to_samples": (
        PROBE.replace(_RUN, "        task.samples[0].clamp_(0.2, 0.3)\n" + _RUN),
        "leaves_things_alone",
    ),
    "switches_dtype": (
        PROBE.replace(_RUN, "        import torch; torch.set_num_threads(torch.get_num_threads() + 1)\n" + _RUN),
        "leaves_things_alone",
    ),
    "leaves_gradients_off": (
        PROBE.replace(_RUN, "        import torch; torch.set_grad_enabled(False)\n" + _RUN),
        "leaves_things_alone",
    ),
    "leaves_another_dtype": (
        PROBE.replace(_RUN, "        import torch; torch.set_default_dtype(torch.float64)\n" + _RUN),
        "leaves_things_alone",
    ),
    "leaves_the_directory": (
        PROBE.replace(_RUN, "        import os; os.chdir('/')\n" + _RUN),
        "leaves_things_alone",
    ),
    "object_in_provenance": (
        PROBE.replace('of the embedding")})', 'of the embedding")}, provenance={"what": self})'),
        "crosses_processes",
    ),
    "essay": (PROBE.replace("return [f", "return ['a', 'b', 'c', f"), "finds_in_sentences"),
    "no_figure": (
        PROBE.replace(
            "    def findings", "    def figures(self, result):\n        return {'a': 1}\n\n    def findings"
        ),
        "draws_figures",
    ),
    "pyplot": (
        PROBE.replace(
            "    def findings",
            "    def figures(self, result):\n        import matplotlib.pyplot as plt\n"
            "        return {'a': plt.figure()}\n\n    def findings",
        ),
        "draws_figures",
    ),
    "raises": (PROBE.replace(_RUN, "        raise OSError('no licence server')\n" + _RUN), "returns_a_result"),
}

DATASET_FAULTS = {
    "empty": (DATASET.replace("return 3", "return 0"), "opens"),
    "decodes_at_once": (
        DATASET.replace(
            "        uri.allow_options(())",
            "        uri.allow_options(())\n        import io\n        from PIL import Image\n"
            "        kept = io.BytesIO()\n"
            "        Image.new('L', (8, 8)).save(kept, 'PNG')\n        Image.open(kept).load()",
        ),
        "opens_soon",
    ),
    "endless": (DATASET.replace("(10, 20, 30)[index]", "(10, 20, 30)[index % 3]"), "ends"),
    "same_id": (DATASET.replace("eqv.Sample(str(level)", "eqv.Sample('image'"), "gives_samples"),
    "short_digest": (DATASET.replace(".hexdigest()", ".hexdigest()[:8]"), "gives_samples"),
    "shuffled": (
        DATASET.replace(
            "        uri.allow", "        import random; self.shift = random.random()\n        uri.allow"
        ).replace("str(level).encode()", "f'{level} {self.shift}'.encode()"),
        "is_the_same_again",
    ),
    "random_pixels": (
        DATASET.replace("return Image.new", "import random; level = random.randrange(256)\n        return Image.new"),
        "decodes",
    ),
    "one_digest": (DATASET.replace("str(level).encode()", "b'x'"), "decodes"),
    "ignores_options": (DATASET.replace("uri.allow_options(())", "pass"), "refuses_unknown_options"),
    "downloads": (
        DATASET.replace("uri.allow_options(())", "import socket; socket.create_connection(('example.org', 80))"),
        "opens_offline",
    ),
    "no_examples": (DATASET.replace('    examples = ("NAME",)\n', ""), "describes_itself"),
}
