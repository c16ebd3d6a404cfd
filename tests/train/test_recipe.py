from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from cnerta.models.errors import ConfigError
from cnerta.train.recipe import Recipe, load_recipe, recipe_files, recipe_names

# Table 3, row by row: encoder, checkpoint, fusion, whether the CTC task is on.
ENCODERS = {
    "bilstm": ("bilstm", ""),
    "lattice": ("lattice", ""),
    "softlexicon": ("softlexicon", ""),
    "bert": ("pretrained", "bert-base-chinese"),
    "macbert": ("pretrained", "hfl/chinese-macbert-base"),
    "zen": ("zen", "ZEN_pretrain_base_v0.1.0"),
}
FUSIONS = {
    "crf": ("none", False),
    "cma": ("cma", False),
    "mmi": ("mmi", False),
    "m3t": ("cma", True),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_row_of_table_3_is_a_recipe(encoder: str, fusion: str) -> None:
    name = f"{encoder}-{fusion}"
    recipe = load_recipe(name)
    assert recipe.name == name
    # The paper has the lattice on text alone; SoftLexicon is ours.
    in_paper = encoder not in ("lattice", "softlexicon") or name == "lattice-crf"
    assert recipe.source.startswith("Sui et al. (ACL 2021), Table 3, ") == in_paper
    assert (recipe.model.text.encoder, recipe.model.text.checkpoint) == ENCODERS[encoder]
    assert (recipe.model.fusion.kind, recipe.model.ctc.weight > 0) == FUSIONS[fusion]
    assert recipe.model.labels == "nested"
    assert load_recipe(name, ["model.labels=flat"]).model.labels == "flat"
    # Text alone needs no recordings; everything else needs them in training and development.
    heard = {bool(source.audio_root) for source in recipe.data.values()}
    assert heard == {fusion != "crf"}
    assert not recipe.model.acoustic.streaming
    (stage,) = recipe.stages
    assert (stage.batch_size, stage.batch_seconds, stage.patience) == (16, 0, 0)
    pretrained = ENCODERS[encoder][0] in ("pretrained", "zen")
    assert stage.epochs == (10 if pretrained else 100)
    assert (stage.learning_rate, stage.text_learning_rate) == (1e-5 if pretrained else 1e-3, 0.0)
    if not pretrained:
        assert (recipe.model.text.embedding, recipe.model.text.hidden) == (50, 300)
        assert recipe.model.text.embeddings == "gigaword_chn.char50d.vec"
    assert bool(recipe.model.text.word_embeddings) == (encoder in ("lattice", "softlexicon"))
    check_the_papers_model(recipe)


def check_the_papers_model(recipe: Recipe) -> None:
    """What docs/fidelity.md says of every row."""
    model, (stage,) = recipe.model, recipe.stages
    assert (model.tags, model.crf, model.tagger_dropout) == ("bio", "plain", 0.0)
    acoustic = model.acoustic
    assert (acoustic.positions, acoustic.norm) == ("sinusoids", "post")
    assert (acoustic.mel_bins, acoustic.conv_channels, acoustic.width) == (40, 256, 256)
    if model.fusion.kind != "none":
        fusion = model.fusion
        assert (fusion.width, fusion.residual, fusion.null_key) == (0, "text", False)
        assert (fusion.heads, fusion.feed_forward) == (12, 3072)
        assert (fusion.tagger_input == "fused") == (fusion.kind == "cma")
    if model.ctc.weight:
        assert (model.ctc.weight, model.ctc.scale) == (1.0, "character")
    assert (stage.optimizer, stage.schedule, stage.epoch_decay) == ("adamw", "epochs", 0.01)
    assert (stage.warmup_steps, stage.by_length, stage.crf_learning_rate) == (0, False, 0.1)
    augmentation = recipe.augmentation
    assert (augmentation.speeds, augmentation.gain_db) == ((1.0,), 0.0)


def test_the_papers_rows_have_plain_names_and_a_folder() -> None:
    assert load_recipe("paper/bilstm-m3t") == load_recipe("bilstm-m3t")
    paper = [n for n, file in recipe_files().items() if file.startswith("paper/")]
    assert len(paper) == 17
    assert all(load_recipe(n).source.startswith("Sui et al.") for n in paper)


def test_every_key_of_the_papers_rows_says_where_it_is_from() -> None:
    folder = resources.files("cnerta.train") / "recipes" / "paper"
    silent = {"name", "extends", "source", "seed", "kind", "weight", "task", "train", "dev"}
    silent |= {"format", "path", "audio_root"}
    for file in folder.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            key, separator, rest = line.partition(" = ")
            if separator and not line.startswith("#") and key not in silent:
                said = rest.partition("#")[2].strip()
                assert re.match(r"([4-7]|release|ours|equation|λ|Zhang)", said), (file, line)


def test_rows_are_told_apart_by_their_sources() -> None:
    sources = [load_recipe(name).source for name in recipe_names()]
    rows = [s.split(";")[0] for s in sources if "Table 3, " in s]
    assert len(set(rows)) == len(rows) == 17


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), overrides)


def test_a_recipe_says_only_how_it_differs(tmp_path: Path) -> None:
    written(
        tmp_path,
        "base.toml",
        """
        source = "somewhere"
        seed = 3
        [model.text]
        hidden = 64
        dropout = 0.2
        [data.a]
        format = "manifest"
        path = "a.jsonl"
        where = { split = ["train"], voice = ["x"] }
        [[stages]]
        name = "one"
        task = "entities"
        train = ["a"]
        dev = ["a"]
        epochs = 2
        [[stages]]
        name = "two"
        task = "entities"
        train = ["a"]
        dev = ["a"]
        epochs = 4
        """,
    )
    middle = written(
        tmp_path,
        "rows/middle.toml",
        """
        extends = "../base.toml"
        name = "m"
        [model.text]
        hidden = 32
        [data.a]
        where = { split = ["all"] }
        [data.b]
        format = "words"
        path = "w"
        """,
    )
    last = written(
        tmp_path,
        "rows/last.toml",
        """
        extends = "middle.toml"
        [[stages]]
        name = "only"
        task = "entities"
        train = ["b"]
        dev = ["a"]
        epochs = 1
        """,
    )
    recipe = load(middle)
    assert (recipe.name, recipe.source, recipe.seed) == ("m", "", 3)
    assert (recipe.model.text.hidden, recipe.model.text.dropout) == (32, 0.2)
    assert recipe.data["a"].where == {"split": ["all"], "voice": ["x"]}
    assert recipe.data["b"].format == "words"
    assert [s.name for s in recipe.stages] == ["one", "two"]
    child = load(last, "model.text.hidden=8")
    assert child.name == "last"
    assert child.model.text.hidden == 8
    assert [(s.name, s.train) for s in child.stages] == [("only", ["b"])]
    assert load(middle).model.text.hidden == 32, "a child changes nothing in its parent"


def test_a_recipe_of_ones_own_extends_one_of_the_package(tmp_path: Path) -> None:
    mine = written(tmp_path, "mine.toml", 'extends = "bilstm-m3t"\n[model.ctc]\nweight = 0.3\n')
    ours, theirs = load(mine), load_recipe("bilstm-m3t")
    assert ours.model.ctc.weight == 0.3
    assert ours.model.fusion == theirs.model.fusion
    assert ours.data == theirs.data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('extends = "b.toml"', r"to end .*, got .*a\.toml extends .*b\.toml extends .*a\.toml"),
        ('extends = "a.toml"', r"expected recipes to end somewhere"),
        ('extends = "nothing"', r"one of .*; got 'nothing', which .*a\.toml extends"),
        ('extends = "no.toml"', r"expected a recipe file, got .*no\.toml"),
        ('extends = ["a", "b"]', r"expected one recipe to extend, got \['a', 'b'\]"),
        ('extends = "bilstm-crf"\n[model]\nspeed = 1', r"unknown field `speed`"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "a.toml", content)
    written(tmp_path, "b.toml", 'extends = "a.toml"')
    with pytest.raises(ConfigError, match=message):
        load(path)
