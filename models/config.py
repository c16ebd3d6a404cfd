"""Model settings: one frozen value per component, read from a recipe's ``[model]`` table."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "LEXICON_ENCODERS",
    "AcousticConfig",
    "AcousticKind",
    "Activation",
    "AudioUse",
    "CrfKind",
    "CtcConfig",
    "CtcScale",
    "Encoding",
    "FusionConfig",
    "FusionKind",
    "GazetteerConfig",
    "LabelKind",
    "ModelConfig",
    "NormPlace",
    "Positions",
    "Residual",
    "TaggerInput",
    "TextConfig",
    "TextKind",
    "UnitKind",
]

FusionKind = Literal["none", "cma", "mmi", "aligned"]
AcousticKind = Literal["transformer", "pretrained"]
TextKind = Literal["bilstm", "lattice", "softlexicon", "pretrained", "zen"]
UnitKind = Literal["characters", "pronunciations"]
LabelKind = Literal["flat", "nested"]
Encoding = Literal["bilou", "bio"]
"""How the characters of an entity are told apart: also its last one and one alone, or the first
only."""
CrfKind = Literal["well-formed", "plain"]
Positions = Literal["rotary", "sinusoids"]
NormPlace = Literal["pre", "post"]
Residual = Literal["query", "text"]
TaggerInput = Literal["both", "fused"]
Activation = Literal["relu", "gelu"]
CtcScale = Literal["character", "sentence"]
AudioUse = Literal["aligned", "unaligned", "none"]
"""What a model does with audio: it uses it and aligns it with the text; it uses it, but does not
align it (no CTC task); it does not use it."""
LEXICON_ENCODERS: frozenset[TextKind] = frozenset({"lattice", "softlexicon", "zen"})
"""Text encoders whose input includes the words of a lexicon that occur in the text."""


class AcousticConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The acoustic encoder of section 4.3. Its defaults are ours, see docs/fidelity.md.

    Attributes:
        mel_bins: Filters of the filter bank.
        conv_channels: Channels of the two convolutions.
        width: Size of a frame.
        layers: Transformer layers.
        heads: Attention heads.
        feed_forward: Inner size of the feed-forward layers.
        dropout: Dropout probability.
        inner_dropout: The same of attention weights, inside the feed-forward layers and of what
            the convolutions give; none: ``dropout``.
        positions: ``rotary`` (ours: they turn queries and keys, so that only distances count) or
            ``sinusoids`` (the paper: added to what the convolutions give, which the release scales
            by the square root of ``width`` first). Sinusoids cannot stream.
        norm: Layer normalisation before each part of a transformer layer with one more at the end
            (``pre``, ours), or after each (``post``: Vaswani et al. 2017 and the release).
        chunk_frames: Frames a streaming call usually brings.
        left_frames: Frames of left context a chunk may attend to.
        min_chunk: Smallest chunk drawn in training.
        max_chunk: Largest chunk drawn in training.
        streaming: Encode in chunks, as speech comes in. If not, every frame attends to the whole
            utterance, as in the paper: it can be encoded only once it is there, and is encoded
            again whenever more of it has come. The chunk settings then mean nothing.
        encoder: ``transformer``, or ours: ``pretrained``. With ``streaming`` that is Whisper's, see
            :mod:`cnerta.models.networks.streaming_whisper`: ``width``, ``dropout`` and the chunks
            can be set, and with ``layers`` how many of its layers are used, from the first.
            Without, it is Whisper's, wav2vec 2.0's or HuBERT's, see
            :mod:`cnerta.models.networks.pretrained_acoustic`: only ``width`` and ``dropout`` can be
            set.
        checkpoint: For ``pretrained``: the weights to start from, a folder (below the data root, or
            as it is) or a name on the Hugging Face hub.
    """

    mel_bins: int = 80
    conv_channels: int = 64
    width: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 2048
    dropout: float = 0.1
    inner_dropout: float | None = None
    positions: Positions = "rotary"
    norm: NormPlace = "pre"
    chunk_frames: int = 8
    left_frames: int = 56
    min_chunk: int = 4
    max_chunk: int = 24
    streaming: bool = True
    encoder: AcousticKind = "transformer"
    checkpoint: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be silently ignored or cannot be built."""
        if self.positions == "sinusoids" and (self.streaming or self.encoder != "transformer"):
            raise ValueError(
                "expected sinusoids with encoder transformer and streaming false: a stream has no "
                f"end that they could reach to; got {self.encoder} and streaming {self.streaming}"
            )
        if self.norm == "post" and self.encoder != "transformer":
            raise ValueError(f"expected norm post with encoder transformer, got {self.encoder}")

    @property
    def dropout_inside(self) -> float:
        """Dropout probability inside the layers' parts."""
        return self.dropout if self.inner_dropout is None else self.inner_dropout

    @property
    def usual_chunk(self) -> int | None:
        """Frames a chunk when the model is used; None for full context."""
        return self.chunk_frames if self.streaming else None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text encoder. The defaults are the paper's BiLSTM.

    Attributes:
        encoder: ``bilstm``, ``lattice`` (Lattice-LSTM; Zhang and Yang 2018), ``softlexicon`` (a
            BiLSTM with a lexicon; Ma et al. 2020, ours), ``pretrained`` (any BERT-like one) or
            ``zen`` (a BERT with n-grams; Diao et al. 2020).
        checkpoint: For ``pretrained`` and ``zen``: the weights to start from, a folder (below the
            data root, or as it is) or a name on the Hugging Face hub. For the others: such a
            checkpoint of a BERT-like encoder, whose piece embeddings the character embeddings start
            as, brought down to ``embedding`` numbers by their principal components; none: random.
        embeddings: File with the vectors that character embeddings start as, in word2vec's text
            form, below the data root or as it is; none: random. Not for ``pretrained`` and ``zen``,
            as ``embedding`` and ``hidden``.
        word_embeddings: The same for word embeddings. Without ``lexicon`` its words are the
            lexicon.
        embedding: Size of a character embedding.
        word_embedding: Size of a word embedding (``lattice``, ``softlexicon``).
        tag_embedding: Ours: size of the embedding of a word's tags (a dictionary's parts of speech,
            the names of the lists it is in), which words that training never shows share with
            those it does; 0 for none.
        hide_words: Ours: probability that in training a word's own embedding is hidden and its tags
            must do.
        lexicon: Word lists the model is to know, parted by commas: files (below the data root, or
            as they are; THUOCL, jieba and word2vec forms, or plain words), or ``jieba`` for that
            package's dictionary. Only for training: a model carries its words with it. The
            checkpoint of a ``zen`` brings its own n-grams.
        hidden: Size of the text representation, both directions together.
        dropout: Dropout probability.
    """

    encoder: TextKind = "bilstm"
    checkpoint: str = ""
    embeddings: str = ""
    word_embeddings: str = ""
    embedding: int = 50
    word_embedding: int = 50
    tag_embedding: int = 0
    hide_words: float = 0.0
    lexicon: str = ""
    hidden: int = 300
    dropout: float = 0.5


class GazetteerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ours: what word lists know of the words in a text, see :mod:`cnerta.models.text.gazetteer`.

    For text encoders that know no words themselves (``bilstm``, ``pretrained``).

    Attributes:
        lists: Word lists, as in ``model.text.lexicon``; none: no gazetteer. Only for training: a
            model carries its own with it.
        width: Size of a character's features.
        rare: Words that are no names and are counted fewer times than this are left out.
        hide: Probability that in training a word is hidden, so that what no list has is found too.
    """

    lists: str = ""
    width: int = 32
    rare: int = 20
    hide: float = 0.2


class FusionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How speech reaches the tagger.

    Attributes:
        kind: ``none`` (text only), ``cma`` (cross-modal attention, equation 1), ``mmi``
            (multimodal interaction, Yu et al. 2020) or ``aligned`` (ours: pools each character's
            own frames and the pauses beside it, which the CTC task has to find).
        width: Size of the fused representation; of each of its two halves with ``mmi``. 0: that of
            the text representation.
        residual: What attention is added to before its first normalisation, for ``cma`` and
            ``mmi``: ``query`` (ours: the text brought to ``width``) or ``text`` (the paper: the
            text representation itself, which needs a ``width`` of 0).
        null_key: Ours: attention may look at a learned null key and value, which are all there is
            without audio. Without it, attention adds nothing where there is no audio. Always for
            ``aligned``.
        match_frames: As the release, for ``cma``: bring the frames to ``width`` by a linear layer
            and tanh before keys and values are made of them.
        tagger_input: What the CRF's scores are made of: ``both`` (ours: text and fused
            representation) or ``fused`` (the paper's F alone).
        activation: Of the feed-forward layer: ``relu`` (the paper) or ``gelu`` (the release).
        heads: Attention heads; ``aligned`` has none.
        feed_forward: Inner size of the feed-forward layer.
        dropout: Dropout probability.
        guided: Ours, for ``cma``: add the masked CTC log-probability of each character at each
            frame to the attention scores, so that a character looks at its own frames from the
            first step.
        pause_context: Ours, for ``cma``: show each frame the blank's probability this many frames
            either way, so that attention sees how long the pauses beside a character are; 0 for not
            (the paper).
        context: Ours: size of a BiLSTM over text and fused representation, so that the audio of one
            character can move the boundary of another; 0 for none (the paper).
        posterior_features: As the authors' release, but not their paper: show the tagger the masked
            CTC probability of each character at each of the first so many frames. Later frames are
            not seen in this way. 366 in the release: the longest of its recordings, 14.6 s. 0 for
            none.
        prosody: Ours: weight of an auxiliary task, in which the fused representation predicts how
            strong a boundary the speaker made after each character, where the data have prosody
            marks; 0 for none.
        readings: Ours: size of the embedding of how each character with several pronunciations was
            read, an input of the tagger; needs ``model.ctc.units = "pronunciations"``. The masked
            CTC task adds a character's pronunciations up and would unlearn to distinguish them, so
            stages of entities freeze the acoustic encoder or train its own task beside. 0 for none.
        gated: Ours: answer from text alone, and let a second head, which listens, move the answer
            as far as the audio fits, see :mod:`cnerta.models.networks.audio_head`.
    """

    kind: FusionKind = "cma"
    width: int = 256
    residual: Residual = "query"
    null_key: bool = True
    match_frames: bool = False
    tagger_input: TaggerInput = "both"
    activation: Activation = "relu"
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    guided: bool = False
    pause_context: int = 0
    context: int = 0
    posterior_features: int = 0
    prosody: float = 0.0
    readings: int = 0
    gated: bool = False

    def __post_init__(self) -> None:
        """Refuse what would be silently ignored or cannot be built."""
        if self.kind in ("cma", "mmi") and self.width % self.heads:
            raise ValueError(f"expected a width of {self.heads} equal heads, got {self.width}")
        if self.residual == "text" and (self.width or self.kind not in ("cma", "mmi")):
            raise ValueError(
                "expected residual text with kind cma or mmi and width 0, the text's own, got "
                f"{self.kind} and {self.width}"
            )
        if not self.null_key and self.kind not in ("cma", "mmi"):
            raise ValueError(f"expected null_key false with kind cma or mmi, got {self.kind}")
        if self.match_frames and self.kind != "cma":
            raise ValueError(f"expected match_frames with kind cma, got {self.kind}")
        if self.tagger_input == "fused" and (self.kind == "none" or self.gated):
            raise ValueError(
                "expected tagger_input fused with a fusion that uses audio and without gated, got "
                f"kind {self.kind}"
            )
        if self.gated and (self.kind == "none" or self.posterior_features):
            raise ValueError(
                "expected gated with a fusion that hears, without posterior_features, got kind "
                f"{self.kind} and {self.posterior_features}"
            )
        if self.kind == "none" and self.prosody:
            raise ValueError("expected prosody with a fusion that uses audio, got kind none")
        if self.kind in ("mmi", "aligned") and (self.guided or self.pause_context):
            raise ValueError(
                f"expected guided and pause_context with kind cma only, got {self.kind}"
            )


class CtcConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The CTC task.

    Attributes:
        weight: λ of equation 3: weight of the CTC loss beside the CRF's. 0 turns the task off (the
            -CMA-CRF rows).
        scale: What the loss is the mean of, over sentences: of the loss a ``character`` (as the
            release: a long sentence weighs like a short one) or of that of the whole ``sentence``
            (as the CRF's).
        units: ``characters`` (the paper) or ``pronunciations`` (ours: tonal syllables, composed
            of initial, final and tone).
    """

    weight: float = 0.1
    scale: CtcScale = "character"
    units: UnitKind = "characters"


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: text encoder (x gazetteer) x fusion x CTC, and its labels.

    Attributes:
        acoustic: The acoustic encoder.
        text: The text encoder.
        gazetteer: What word lists know.
        fusion: How speech reaches the tagger.
        ctc: The CTC task.
        labels: ``nested`` (all entities) or ``flat`` (the outermost).
        tags: ``bilou`` (ours) or ``bio`` (the paper).
        crf: ``well-formed`` (ours: a tag sequence that is no annotation has no probability) or
            ``plain`` (the paper: every sequence has; where one is ill-formed, an inside tag that
            continues nothing begins an entity, as CoNLL's evaluation has it).
        tagger_dropout: Dropout probability of what the CRF's scores are made of; none: the text
            encoder's.
    """

    acoustic: AcousticConfig = AcousticConfig()
    text: TextConfig = TextConfig()
    gazetteer: GazetteerConfig = GazetteerConfig()
    fusion: FusionConfig = FusionConfig()
    ctc: CtcConfig = CtcConfig()
    labels: LabelKind = "nested"
    tags: Encoding = "bilou"
    crf: CrfKind = "well-formed"
    tagger_dropout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.fusion.readings and (self.ctc.units != "pronunciations" or not self.ctc.weight):
            raise ValueError(
                "expected model.fusion.readings with model.ctc.units pronunciations and a weight "
                f"of that task, got {self.ctc.units} and {self.ctc.weight}"
            )

    @property
    def uses_audio(self) -> bool:
        """Whether an answer can depend on audio."""
        return self.fusion.kind != "none"

    @property
    def audio_use(self) -> AudioUse:
        """What the model does with audio, by the tasks it is trained on."""
        if self.ctc.weight:
            return "aligned"
        return "none" if self.fusion.kind == "none" else "unaligned"
