"""Documents that are kept apart: each is read as though it were alone, or the model is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from compresslab.algorithms.next_token import IGNORED_TARGET
from compresslab.errors import UnsupportedModel
from compresslab.evaluation.text_divergence import divergences
from compresslab.methods.depth import PruneDepth
from compresslab.models.anatomy import decoder_layers, output_head
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.calibration.removals import order_temporarily
from compresslab.models.calibration.statistics import gather_temporarily
from compresslab.models.calibration.stored_logits import store_temporarily
from compresslab.models.documents.boundaries import ModelInput, refuse_crossing
from compresslab.models.load import Loaded, load_folder
from compresslab.models.progress import silent
from compresslab.models.save import save
from compresslab.models.streamed.open import open_by_layers
from compresslab.models.text import TokenSequences
from compresslab.steps.training.held_out import mean_loss
from models.architectures import HEADED, swept_model
from models.tiny import ARCHITECTURES, THIRD_PARTY_WARNINGS, VOCABULARY, bounded_text, make, make_model, make_tokenizer

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]

SERVED = ("gpt2", "gpt_neo", "gptj", "falcon", "phi", "cohere", "gemma3", "jetmoe")
REFUSED = ("opt", "bloom", "mpt", "xglm", "biogpt", "mamba", "rwkv", "recurrent_gemma", "lfm2")


def documents_of(text: ModelInput) -> list[ModelInput]:
    """Each piece of a document alone, in order."""
    assert text.positions is not None
    found = []
    for ids, positions in zip(text.ids, text.positions, strict=True):
        found += [ModelInput(piece[None]) for piece in ids.tensor_split((positions[1:] == 0).nonzero()[:, 0] + 1)]
    return found


@torch.no_grad()
def check_alone(model: PreTrainedModel) -> None:
    words = bounded_text(2, 32).input
    alone = torch.cat([model(**one.arguments).logits[0] for one in documents_of(words)])
    torch.testing.assert_close(model(**words.arguments).logits.flatten(0, 1), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_documents_of_a_sequence_have_the_logits_of_each_alone(name: str):
    model = make_model(name, torch.float32)
    refuse_crossing(model)
    check_alone(model)


def test_a_model_whose_class_names_a_part_that_it_lacks_keeps_documents_apart():
    """`base_model` of Llama 4's text model is the whole model, which gives no hidden states."""
    config = AutoConfig.for_model(
        "llama4_text", **HEADED, intermediate_size_mlp=64, num_local_experts=2, vocab_size=VOCABULARY, pad_token_id=0
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.05)
    refuse_crossing(model)
    output_head(model)
    assert len(decoder_layers(model)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_other_architectures_keep_documents_apart_too(name: str):
    model = swept_model(name).float().eval()
    refuse_crossing(model)
    Blockwise(model, bounded_text(2, 32).input)
    check_alone(model)


def test_longer_documents_than_a_window_are_read_alone():
    model = make_model("gemma3", torch.float32)
    positions = torch.cat([torch.arange(20), torch.arange(12)])[None]
    words = bounded_text(1, 32).input._replace(positions=positions)
    with torch.no_grad():
        alone = torch.cat([model(**one.arguments).logits[0] for one in documents_of(words)])
        torch.testing.assert_close(model(**words.arguments).logits[0], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_does_not_keep_documents_apart_is_refused(name: str):
    model = swept_model(name).float().eval()
    with pytest.raises(UnsupportedModel, match=r"does not keep the documents of a sequence apart: .*; take documents: packed"):
        refuse_crossing(model)
    with pytest.raises(UnsupportedModel, match=r"take documents: packed|go layer by layer do not serve it"):
        Blockwise(model, bounded_text(2, 32).input)


def test_targets_and_counted_positions_end_with_the_document():
    words = ModelInput(torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[0, 1, 0, 0, 1]]))
    assert words.next_tokens().tolist() == [6, IGNORED_TARGET, IGNORED_TARGET, 9, IGNORED_TARGET]
    assert words.counted(words.ids).tolist() == [5, 8, 9]
    assert words.counted(words.ids, last=-1).tolist() == [5, 8]


def test_the_held_out_loss_is_the_mean_over_the_documents_alone():
    model, words = make_model("qwen3", torch.float32), bounded_text(4, 32).input
    alone = [one for one in documents_of(words) if one.ids.shape[1] > 1]
    sums = [mean_loss(model, one) * (one.ids.shape[1] - 1) for one in alone]
    expected = sum(sums) / sum(one.ids.shape[1] - 1 for one in alone)
    assert mean_loss(model, words) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("streamed", [False, True])
def test_statistics_are_those_of_the_documents_alone(tmp_path: Path, streamed: bool):
    words = bounded_text(4, 32)
    save(make("llama", torch.float32), tmp_path)
    loaded = (open_by_layers if streamed else load_folder)(tmp_path, torch.float32)
    found = gather_temporarily(loaded, words, grams=True, progress=silent)
    model = make_model("llama", torch.float32)
    inputs: list[torch.Tensor] = []
    model.model.layers[3].mlp.down_proj.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]))
    with torch.no_grad():
        for one in documents_of(words.input):
            model(**one.arguments)
    expected = torch.cat(inputs)
    torch.testing.assert_close(found.gram(3, "mlp.down_proj"), expected.T @ expected, rtol=1e-4, atol=1e-4)


def test_removals_are_ordered_by_the_loss_on_the_documents_alone():
    model, words = make_model("llama", torch.float32), bounded_text(4, 32)
    found = order_temporarily(model, words, PruneDepth(method="depth", keep=3, by="loss"), silent)
    assert found.whole == pytest.approx(mean_loss(model, words.input), rel=1e-5)


def test_stored_logits_are_those_of_the_documents_alone_and_fit_no_other_packing():
    teacher, words = make("llama", torch.float32), bounded_text(4, 32)
    stored = store_temporarily(teacher, words, 8, silent)
    with torch.no_grad():
        alone = torch.cat([teacher.model(**one.arguments).logits[0] for one in documents_of(words.input)])
    largest = alone.log_softmax(-1).topk(8).values
    torch.testing.assert_close(stored.read(torch.arange(4)).log_probabilities[..., :8].flatten(0, 1), largest, rtol=1e-3, atol=1e-3)
    stored.check(teacher, words)
    with pytest.raises(Exception, match="for another text: sequence 1"):
        stored.check(teacher, words._replace(bounded=False))


def test_divergences_are_means_over_the_positions_that_count():
    child, parent = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    words = bounded_text(2, 32)
    found = divergences(child, parent, words, silent)
    with torch.no_grad():
        ours, theirs = (
            side.model(**words.input.arguments).logits[..., : len(make_tokenizer())].log_softmax(-1) for side in (child, parent)
        )
    each = (theirs.exp() * (theirs - ours)).sum(-1)
    for row in range(2):
        expected = words.input.rows(slice(row, row + 1)).counted(each[row : row + 1]).mean()
        assert found.kl[row].item() == pytest.approx(expected.item(), rel=1e-4)
    assert found.agreement == pytest.approx(words.input.counted(ours.argmax(-1) == theirs.argmax(-1)).float().mean().item())


def test_what_top_k_tells_has_the_weights_of_the_whole_divergence():
    """A sequence of many short documents has fewer positions that count than one of a single document."""
    child, parent = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    short, long = (torch.arange(32) % length for length in (2, 32))
    ids = bounded_text(2, 32).ids
    documents = torch.stack([torch.arange(32) // 2, torch.full((32,), 16)])
    words = TokenSequences(ids, "", documents=documents, bounded=True)
    assert torch.equal(words.input.positions, torch.stack([short, long]))  # type: ignore[arg-type]
    each = [divergences(child, parent, words.at(torch.tensor([row])), silent, (8,)) for row in range(2)]
    both = divergences(child, parent, words, silent, (8,))
    assert both.kl.tolist() == pytest.approx([one.kl.item() for one in each], rel=1e-4)
    assert both.top_k[8] == pytest.approx(sum(one.top_k[8] for one in each) / 2, rel=1e-4)
    assert abs(each[0].top_k[8] - each[1].top_k[8]) > 0.01 * both.top_k[8]


@pytest.mark.slow
def test_models_that_cross_documents_are_not_compared_on_bounded_text():
    crossing = Loaded(swept_model("bloom").float().eval(), make_tokenizer())
    with pytest.raises(UnsupportedModel, match="take documents: packed"):
        divergences(crossing, crossing, bounded_text(2, 32), silent)
