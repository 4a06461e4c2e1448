"""Config loading: layers, origins, and error messages with the key, its origin and the closest valid key."""

from pathlib import Path

import pytest

from mapnet_cli.config import Config, MapNetProposal, Method, TaskData
from mapnet_cli.config.loading import RECIPES, resolve
from mapnet_cli.core.errors import UsageError
from mapnet_cli.glue.grid import fine_tuned


def test_precedence_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "demo"\n\n[pretrain]\nsteps = 7\nbatch_size = 3\npeak_lr = 1e-3\n')
    environ = {"MAPNET_PRETRAIN__BATCH_SIZE": "4", "MAPNET_FINETUNE__DATA": "probe", "PATH": "x"}
    resolved = resolve(None, file, ["pretrain.peak_lr=0.5"], environ)
    pretrain, origins = resolved.config.pretrain, resolved.origins
    assert (pretrain.steps, pretrain.batch_size, pretrain.peak_lr) == (7, 4, 0.5)
    assert origins["pretrain.steps"] == f"{file}:4"
    assert origins["pretrain.batch_size"] == "environment"
    assert origins["pretrain.peak_lr"] == "--set"
    assert origins["encoder.layers"].startswith("recipe demo:")
    assert origins["pretrain.adam_eps"] == "default"
    assert resolved.config.recipe == "demo"


def test_default_recipe_with_and_without_a_file(tmp_path: Path) -> None:
    assert resolve(None, None, (), {}).config.recipe == "demo"
    file = tmp_path / "mine.toml"
    file.write_text("[pretrain]\nsteps = 7\n")
    config = resolve(None, file, (), {}).config
    assert (config.recipe, config.encoder.hidden, config.pretrain.steps) == ("", 768, 7)


def test_paper_recipe_has_the_values_of_the_paper() -> None:
    """Tables 1 and 2 and section 4.1."""
    config = resolve("paper", None, (), {}).config
    p, f, e, m = config.pretrain, config.finetune, config.encoder, config.proposal
    assert (p.batch_size, p.steps, p.peak_lr, p.adam_eps, p.adam_betas) == (256, 1_000_000, 1e-4, 1e-6, (0.9, 0.98))
    assert (p.warmup_steps, p.weight_decay, e.dropout, config.corpus.block_length) == (10_000, 0.01, 0.1, 512)
    assert p.milestone_steps() == (400_000, 600_000, 800_000, 1_000_000)
    assert (f.batch_sizes, f.epochs, f.warmup_ratio, f.weight_decay) == ((16, 32), 10, 0.06, 0.1)
    assert f.learning_rates == pytest.approx([k * 1e-5 for k in range(1, 9)])
    assert len(f.seeds) == 10
    assert (e.layers, e.hidden, e.heads, e.ffn) == (12, 768, 12, 3072)
    assert (m.layers, m.hidden, m.heads) == (12, 384, 6)
    method = config.method["mapnet"]
    assert method.mapnet is not None
    assert method.mapnet.loss_weight == 0.01
    assert (method.mask_rate, method.replace_mask, method.replace_random) == (0.15, 0.8, 0.1)
    assert (method.explore_start, method.explore_end) == (1.0, pytest.approx(1 / 3))
    by_default = Method(strategy="mapnet")
    assert (method.mapnet, method.exploration) == (by_default.mapnet, by_default.exploration)
    assert config.corpus.vocab_size == 32_678
    defaults = Config(method=config.method).model_dump(exclude={"recipe"})
    assert config.model_dump(exclude={"recipe"}) == defaults, "the defaults are the paper's values"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrain]\nstep = 7\n", r"pretrain\.step \(.*mine\.toml:2\): unknown key; did you mean 'steps'\?"),
        ("[pretrian]\nsteps = 7\n", r"pretrian \(.*mine\.toml:\d\): unknown key; did you mean 'pretrain'\?"),
        ('[pretrain]\nsteps = "many"\n', r"pretrain\.steps \(.*mine\.toml:2\): must be a whole number, but got 'many'"),
        ("[pretrain]\nsteps = 0\n", r"pretrain\.steps .*must be at least 1, but got 0"),
        ('methods = ["bret"]\n', r"methods lists 'bret'.*did you mean 'bert'"),
        ("[method.mine]\nmask_rat = 0.3\n", r"method\.mine\.mask_rat .*did you mean 'mask_rate'"),
        ('[[corpus.sources]]\nkind = "txt"\npath = "x"\n', r"corpus\.sources\.0\.kind \(.*mine\.toml:\d\)"),
        ('[[corpus.sources]]\nkind = "text"\n', "needs a path"),
        ("[encoder]\nhidden = 10\nheads = 3\n", "multiple of heads"),
        ('[proposal]\narchitecture = "modernbert"\nhidden = 15\nheads = 3\n', r"multiple of heads \(3\), and an even"),
        ("[encoder]\nmax_length = 8\n", r"block_length \(32\) exceeds encoder.max_length \(8\)"),
        ("[pretrain]\nmilestones = [0.5, 0.4]\n", "ascending"),
        ("[pretrain]\nsteps = \n", "not valid TOML"),
        ("[finetune]\nmilestones = [1.0, 0.4]\n", r"finetune\.milestones .*must be in ascending order"),
        ('[report]\nname = "a/b"\n', "report.name"),
        ("[method.mapnet.proposal]\nloss_wieght = 1.0\n", r"proposal\.loss_wieght .*did you mean 'loss_weight'"),
        ("[method.bert.electra]\ndetecton_weight = 1.0\n", r"electra\.detecton_weight .*mean 'detection_weight'"),
        ("[method.bert]\nseeds = [1, 1]\n", r"method\.bert\.seeds .*must not contain duplicates"),
        ("[finetune]\nmilestones = [0.5]\n", r"finetune\.milestones \(.*:2\): 0\.5 is not one of pretrain\.mil"),
        ("[pretrain]\nmilestones = [1.0]\n", r"milestones \(recipe demo:\d+\): 0\.4 is .* \(1\.0\); \[\] means all"),
        ('[finetune.task_data.x]\ntext = ["a", "b"]\nlabel = "b"\n', "text and label are the same column, 'b'"),
    ],
)
def test_errors_in_files_name_the_line_and_the_closest_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "demo"\n' + text if not text.startswith("[") else text)
    with pytest.raises(UsageError, match=message):
        resolve("demo", file, (), {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pretrain.steps"], "not of the form"),
        (["pretrain.stesp=3"], r"pretrain\.stesp \(--set\): unknown key; did you mean 'steps'"),
        (["recipe.x=3"], "recipe"),
        ([".steps=3"], r"--set \.steps=3: '\.steps' is not of the form section\.key"),
        (["pretrain.steps.x=3"], r"pretrain\.steps \(--set\): must be a whole number, but got {'x': 3}"),
        (["pretrain.seeds=1 2"], r"write \[1, 2\]$"),
        (["methods=bert"], r'write \["bert"\], in quotes for the shell$'),
        (["recipe=paper"], r"recipe \(--set\): set the recipe with --recipe"),
    ],
)
def test_invalid_overrides(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("demo", None, overrides, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 5\n", r"recipe \(.*\): must be one of demo, .* in quotes, but got 5"),
        ('recipe = ["demo"]\n', r"recipe \(.*\): must be one of demo, .* in quotes, but got \['demo'\]"),
        ("base = 5\n", r"base \(.*:1\): must be the path of a folder in quotes, but got 5"),
        ("[pretrain]\nvocab_size = 300\n", r"pretrain.vocab_size .* did you mean 'batch_size' or 'corpus.vocab_size'"),
        ('methods = "bert"\n', r'write \["bert"\]$'),
        ('[corpus.sources]\npath = "x"\n', r"write \[\[corpus.sources\]\] above each source$"),
        ('[pretrain]\nsteps = "5"\n', "write 5 without quotes$"),
        ('methods = ["a/b"]\n[method."a/b"]\n', "'a/b' is not a valid name"),
        ('methods = ["untrained"]\n[method.untrained]\n', "'untrained' is a row that the tables have anyway"),
        ('methods = ["bert", "BERT"]\n[method.BERT]\n', "two names differ only in capitals"),
    ],
)
def test_values_of_a_wrong_kind_in_files(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve(None, file, (), {})


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('recipe = "small"\n', encoding="utf-8-sig")
    assert resolve(None, tmp_path / "mine.toml", (), {}).config.recipe == "small"


def test_all_spellings_of_a_task_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[finetune.task_data.rte]\ntext = ["a", "b"]\n')
    environ = {"MAPNET_FINETUNE__TASK_DATA__RTE__LABEL": "v"}
    resolved = resolve(None, tmp_path / "mine.toml", ["finetune.task_data.RTE.path=x"], environ)
    assert resolved.config.finetune.task_data["RTE"] == TaskData(text=("a", "b"), label="v", path="x")
    assert resolved.origins["finetune.task_data.RTE.label"] == "environment"


WITHOUT_EFFECT = """\
methods = ["bert", "mapnet"]
[[corpus.sources]]
path = "x"
column = "body"
[method.mapnte]
mask_rate = 0.2
[encoder]
rope_theta = 5.0
[proposal]
architecture = "modernbert"
initial_positions = "sinusoidal"
global_every = 2
[finetune]
mnli_batch_size = 8
tasks = ["RTE"]
[finetune.task_data.mine]
text = "a"
range = [0, 1]
[minimal_pairs]
pairs = 5
"""


def test_settings_without_effect_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(WITHOUT_EFFECT)
    overrides = ["corpus.blocks=sentence", "corpus.cross_documents=true"]
    assert resolve(None, file, overrides, {}).warnings == (
        f"method.mapnte ({file}:6) has no effect: methods doesn't list 'mapnte'; did you mean 'mapnet'?",
        f'encoder.rope_theta ({file}:8) has no effect: encoder.architecture is "bert"',
        f'proposal.initial_positions ({file}:11) has no effect: proposal.architecture is "modernbert"',
        f"proposal.global_every ({file}:12) has no effect: proposal.local_attention is 0",
        'corpus.cross_documents (--set) has no effect: corpus.blocks is "sentence"',
        f"finetune.task_data.mine ({file}:17) has no effect: finetune.tasks doesn't list it",
        f"finetune.mnli_batch_size ({file}:14) has no effect: finetune.from_mnli is empty",
        f"minimal_pairs.pairs ({file}:20) has no effect: minimal_pairs.data is empty",
        f'corpus.sources.0.column ({file}:2) has no effect: the kind of this source is "text"',
    )
    (short,) = resolve(None, None, ["pretrain.steps=100", 'methods=["amlm"]'], {}).warnings
    assert short.startswith("method.amlm.proposal.update_every (200) is never reached: training ends at step 100, so")
    off = ["minimal_pairs.data=[]", "encoder.local_attention=0"]  # the defaults, which turn something off
    for chosen in ('methods=["bert"]', 'methods=["bert","mapnet"]'):
        named = {line.split()[0] for line in resolve(None, file, [chosen, *off], {}).warnings}
        assert "encoder.rope_theta" in named
        assert not named & {"method.mapnte", "encoder.local_attention", "minimal_pairs", "minimal_pairs.data"}
    assert not any(resolve(recipe, None, (), {}).warnings for recipe in RECIPES if recipe != "continue")


def test_a_variable_with_one_underscore_is_not_ignored() -> None:
    with pytest.raises(UsageError, match=r"MAPNET_PRETRAIN_STEPS .* did you mean MAPNET_PRETRAIN__STEPS\?"):
        resolve(None, None, (), {"MAPNET_PRETRAIN_STEPS": "5"})


def test_another_strategy_replaces_the_proposal_of_a_lower_layer(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[method.adaptive]\nstrategy = "mapnet"\n[method.adaptive.proposal]\nuniform_mix = 0.5\n')
    method = resolve("demo", file, (), {}).config.method["adaptive"]
    assert method.proposal == MapNetProposal(uniform_mix=0.5)
    method = resolve("demo", file, ["method.adaptive.strategy=uniform"], {}).config.method["adaptive"]
    assert method.proposal is None
    same = resolve("demo", None, ["method.adaptive.strategy=table", "method.adaptive.proposal.memory=7"], {}).config
    assert same.method["adaptive"].drawing.uniform_mix == 0.3


def test_methods_and_tasks_can_override_seeds_and_milestones() -> None:
    overrides = ["pretrain.seeds=[4]", "method.bert.seeds=[1,2]", "pretrain.steps=10", "finetune.milestones=[0.6,1.0]"]
    overrides.append("finetune.untrained=false")
    config = resolve("demo", None, overrides, {}).config
    assert config.pretraining_runs() == [("bert", 1), ("bert", 2), ("mapnet", 4)]
    expected = [("bert", 1, 6), ("bert", 1, 10), ("bert", 2, 6), ("bert", 2, 10), ("mapnet", 4, 6), ("mapnet", 4, 10)]
    assert fine_tuned(config) == expected


def test_methods_can_override_steps() -> None:
    overrides = ["pretrain.steps=10", "pretrain.milestones=[0.4,1.0]", "method.mapnet.steps=5"]
    overrides.append("finetune.untrained=false")
    config = resolve("demo", None, overrides, {}).config
    assert [config.milestone_steps(method) for method in config.methods] == [(4, 10), (2, 5)]
    assert config.matching_step("mapnet", 2, "bert") == 4
    assert (config.for_method("mapnet").pretrain.steps, config.for_method("bert").pretrain.steps) == (5, 10)
    assert fine_tuned(config) == [("bert", 1, 4), ("bert", 1, 10), ("mapnet", 1, 2), ("mapnet", 1, 5)]
    with pytest.raises(UsageError, match=r"method\.mapnet\.steps \(1\): two milestones fall on the same step"):
        resolve("demo", None, [*overrides, "method.mapnet.steps=1"], {})


def test_electra_of_a_shipped_method_can_be_turned_off() -> None:
    def method(*overrides: str) -> Method:
        return resolve("demo", None, overrides, {}).config.method["electra"]

    assert method().electra is not None
    assert method("method.electra.electra=false").electra is None


def test_tasks_of_glue_have_their_names_in_any_spelling() -> None:
    keys = ('tasks=["sst2", "Mnli", "mine"]', "metrics={rte = 'f1'}", 'subsets=["qqp"]', "task_data.CoLa.path=x")
    finetune = resolve("demo", None, [f"finetune.{key}" for key in keys], {}).config.finetune
    assert (finetune.tasks, finetune.metrics, finetune.subsets) == (("SST-2", "MNLI", "mine"), {"RTE": "f1"}, ("QQP",))
    assert list(finetune.task_data) == ["CoLA"]


def test_unknown_recipe_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        resolve("demos", None, (), {})
    with pytest.raises(UsageError, match="does not exist"):
        resolve(None, tmp_path / "none.toml", (), {})


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "continue"])  # which needs a model
def test_shipped_recipes_are_valid(recipe: str) -> None:
    assert resolve(recipe, None, (), {}).config.recipe == recipe


def test_command_line_recipe_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "demo"\n')
    config = resolve("paper", file, (), {}).config
    assert (config.recipe, config.encoder.hidden) == ("paper", 768)
