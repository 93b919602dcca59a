"""No page names a thing that does not exist; `named_commands.py` and `named_things.py` look."""

import named_things
import pytest
from named_calls import calls
from named_things import CHECKERS
from page_text import ROOT, Page, pages

#: Pages of mistakes: each command on them is entered by a test, and fails as the page says.
MISTAKES = {"wrong_commands": {"docs/errors.md"}, "wrong_settings": {"docs/errors.md"}}
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_whatever_the_pages_name_exists(checker):
    held = [page for page in pages() if page.name not in MISTAKES.get(checker.__name__, ())]
    assert [wrong for page in held for wrong in checker(page)] == []


def test_whatever_files_the_sources_name_exist():
    assert list(named_things.wrong_paths_of_sources()) == []


@pytest.mark.parametrize("name", sorted(named_things.variables_read()))
def test_every_variable_that_is_read_is_described(name):
    assert f"`{name}`" in INSTALL


def test_every_extra_is_described():
    assert named_things.extras() <= set(named_things.named_extras(Page(ROOT / "docs" / "install.md", INSTALL)))


def test_the_pages_name_much():
    entered = [words for page in pages() for words, _ in calls(page, "equivengine")]
    assert len(entered) > 100
    assert {"probe", "run", "report", "compare", "export", "verify", "resume", "ls"} <= {
        words[0] for words in entered if words
    }
    assert len(named_things.variables_read()) >= 9


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`equivengine prob --plugin ldlc`", "no command 'prob'"),
        ("```console\n$ equivengine probe --plugin ldlc --imagse digits\n```", "no option --imagse"),
        ("    NO_COLOR=1 equivengine --quite ls probes", "no option --quite"),
        ("`equivengine ls sets`", "does not take 'sets'"),
        ("`equivengine probe --plugin ldlc --precision fp16`", "does not take 'fp16'"),
        ("`equivengine probe --plugin ldcl`", "no plugin provides probe 'ldcl'"),
        ("`equivengine probe --plugin ldlc --model tim:vit`", "no plugin provides model 'tim'"),
        ("`equivengine probe --plugin ldlc --images image_net:ROOT`", "no plugin provides images 'image_net'"),
        ("`equivengine probe --plugin ldlc --executor serail`", "no plugin provides executor 'serail'"),
        ("```sh\nequivengine probe --plugin ldlc \\\n  --set direction=3\n```", "'ldlc' has no parameter 'direction'"),
        ("`equivengine plugin chekc digits`", "no command 'chekc'"),
        ("`equivengine plugin check digit`", "no plugin is called 'digit'"),
        ("`equivengine show runs/a | head; equivengine verfiy runs/a`", "no command 'verfiy'"),
        ("`--set directons=3` makes it faster", "no probe has a parameter 'directons'"),
        ("`--pairings any`", "no option --pairings"),
        ('```toml\n[[probes]]\nname = "ldlc"\nset = { direction = 3 }\n```', "has no parameter 'direction'"),
        ('```toml\nmodel = "digits"\n[[probes]]\nname = "ldlc"\n```', "run files have no key 'model'"),
        ("```python\nimport equivengine as eqv\n\neqv.load_model('digits')\n```", "there is no eqv.load_model"),
        ("```python\nfrom equivengine.linalg import svds\n```", "there is no equivengine.linalg.svds"),
        ("`equivengine.store.open_file`", "there is no equivengine.store.open_file"),
        ("`Probe.finding`", "there is no equivengine.Probe.finding"),
        ("`equivengine/store/scheme.py`", "there is no equivengine/store/scheme.py"),
        ("`csrc/{cpu,gpu}/`", "there is no csrc/gpu/"),
        ("```sh\npython bench/stores.py\n```", "there is no bench/stores.py"),
        ("```sh\npython bench/tables.py --chekc\n```", "has no option --chekc"),
        ("`pip install equivengine[xarray,hdf]`", "no extra 'hdf'"),
        ("Extras: `train` (scikit-learn), `tests`, `dev`.", "no extra 'tests'"),
        ("`EQUIVENGINE_DEVISE=cpu`", "nothing reads EQUIVENGINE_DEVISE"),
        ("`make tests`", "no target 'tests'"),
        ("```sh\nmake setup PYTHON=python3.12 && make lints  # or make foo\n```", "no target 'lints'"),
    ],
)
def test_what_does_not_exist_is_found(text, wrong):
    page = Page(ROOT / "docs" / "page.md", text)
    found = [sentence for checker in CHECKERS for sentence in checker(page)]
    assert len(found) == 1
    assert wrong in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "`equivengine COMMAND --help`, `equivengine probe ...`, `equivengine ls probes --json`",
        "`equivengine run FILE.toml --model timm:NAME --set-executor KEY=VALUE`",
        "    python -m equivengine -v --no-plugin ldlc probe --probe=ldlc --model 'timm:vit_s?weights=random' > a",
        "`eqv.ProbeResult.arrays`, `equivengine.JacobianOperator.value`, `eqv.EngineError.hint`",
        "`equivengine.ops.substitute`, `Run.to_xarray()`, `equivengine ls {plugins|probes}`",
        "`bench/results/*.json`, `csrc/{cpu,cuda}/`, `runs/demo/run.h5`, `make test lint`, `git log -p`",
    ],
)
def test_what_exists_is_not_complained_about(text):
    page = Page(ROOT / "docs" / "page.md", text)
    assert [sentence for checker in CHECKERS for sentence in checker(page)] == []
