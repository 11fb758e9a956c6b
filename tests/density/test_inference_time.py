"""The roofline of inference time and its inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compresslab.density import Hardware, hardware_names, load_hardware, n_time, seconds
from compresslab.errors import BadInput
from compresslab.recipe.schema import Workload
from compresslab.records import Shape, Size

HARDWARE = st.sampled_from([load_hardware(name) for name in hardware_names()])
WORKLOADS = st.builds(Workload, batch=st.integers(1, 256), prompt=st.integers(1, 8192), decode=st.integers(1, 1024))


def shape(**other):
    dimensions = {"layers": 32, "hidden": 4096, "intermediate": 14336, "attention_width": 4096, "key_value_width": 1024, "vocabulary": 9}
    return Shape(architecture="llama", **(dimensions | other))


def size(n, active=None, bits=16.0):
    return Size(parameters=n, counted=n, active=active or n, nonzero=n, stored_bytes=int(n * bits / 8), effective_bits=bits)


def test_the_profiles_have_sources_and_plausible_figures():
    assert {"rtx-4090", "h100-sxm", "a100-80g", "h20"} <= set(hardware_names())
    for name in hardware_names():
        hardware = load_hardware(name)
        assert hardware.source
        assert 10 < hardware.flops / hardware.bandwidth < 1000


def test_an_unknown_profile_is_named_with_those_that_exist():
    with pytest.raises(BadInput, match=r"'rtx-4900'; did you mean 'rtx-4090'\?"):
        load_hardware("rtx-4900")


def test_a_machine_without_bandwidth_is_none():
    with pytest.raises(ValidationError):
        Hardware(name="x", flops=1e12, bandwidth=0, source="")


def test_decoding_one_sequence_is_bound_by_reading_the_weights():
    hardware, workload = load_hardware("a100-80g"), Workload(batch=1, prompt=1, decode=100)
    assert seconds(shape(), size(8_000_000_000), hardware, workload) == pytest.approx(101 * 16e9 / 2039e9, rel=0.01)


def test_prefill_is_bound_by_compute():
    hardware, workload = load_hardware("a100-80g"), Workload(batch=8, prompt=4096, decode=1)
    prefill = 2 * 8e9 * 8 * 4096 / 312e12
    assert prefill < seconds(shape(), size(8_000_000_000), hardware, workload) < 1.25 * prefill


def test_weight_only_quantization_shrinks_bytes_but_not_compute():
    hardware = load_hardware("a100-80g")
    decode, prefill = Workload(batch=1, prompt=1, decode=500), Workload(batch=8, prompt=4096, decode=1)
    full, quarter = size(8_000_000_000), size(8_000_000_000, bits=4.5)
    weight_only, both = shape(weight_bits=4.5), shape(weight_bits=8.0, weight_only=False)
    assert seconds(weight_only, quarter, hardware, decode) < 0.32 * seconds(shape(), full, hardware, decode)
    assert seconds(weight_only, quarter, hardware, prefill) > 0.97 * seconds(shape(), full, hardware, prefill)
    assert seconds(both, full, hardware, prefill) < 0.6 * seconds(shape(), full, hardware, prefill)


@given(n=st.integers(10**7, 10**12), hardware=HARDWARE, workload=WORKLOADS)
def test_a_dense_bf16_model_takes_as_long_as_itself(n, hardware, workload):
    assert n_time(shape(), size(n), hardware, workload) == pytest.approx(n, rel=1e-9)


@given(n=st.integers(10**7, 10**11), factor=st.floats(1.01, 5), hardware=HARDWARE, workload=WORKLOADS)
def test_time_and_n_time_grow_with_the_model(n, factor, hardware, workload):
    small, large = size(n, bits=4), size(int(n * factor), bits=4)
    quantized = shape(weight_bits=4.0)
    assert seconds(quantized, small, hardware, workload) < seconds(quantized, large, hardware, workload)
    assert n_time(quantized, small, hardware, workload) < n_time(quantized, large, hardware, workload)


@given(bits=st.floats(1, 16), hardware=HARDWARE, workload=WORKLOADS)
def test_n_time_of_a_quantized_model_lies_between_its_share_and_its_size(bits, hardware, workload):
    n = 1_000_000_000
    found = n_time(shape(weight_bits=bits), size(n, bits=bits), hardware, workload)
    assert n * bits / 16 * (1 - 1e-9) <= found <= n * (1 + 1e-9)


def test_weights_save_little_where_the_cache_decides():
    workload = Workload(batch=256, prompt=8192, decode=256)
    model = size(1_000_000_000, bits=4)
    assert n_time(shape(weight_bits=4.0), model, load_hardware("a100-80g"), workload) > 0.9e9


def test_a_mixture_reads_the_experts_that_its_batch_touches():
    hardware = load_hardware("h100-sxm")
    mixture, model = shape(experts=64, experts_per_token=4), size(16_000_000_000, active=2_000_000_000)
    one, many = Workload(batch=1, prompt=1, decode=1000), Workload(batch=256, prompt=1, decode=10)
    assert n_time(mixture, model, hardware, one) == pytest.approx(2e9, rel=0.01)
    assert n_time(mixture, model, hardware, many) > 10e9


@pytest.mark.parametrize(
    ("given_", "weighs"),
    [
        (shape(), size(10, active=20)),
        (shape(), size(10, active=5)),
        (shape(experts=4), size(10, active=5)),
        (shape(weight_bits=0.0), size(10)),
        (shape(), size(0)),
    ],
)
def test_sizes_and_shapes_that_contradict_each_other_are_refused(given_, weighs):
    with pytest.raises(BadInput):
        seconds(given_, weighs, load_hardware("h20"), Workload())
