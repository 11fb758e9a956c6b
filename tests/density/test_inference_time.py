"""Modelled inference time and its inverse."""

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compresslab.density import Hardware, hardware_names, load_hardware, n_time, seconds
from compresslab.errors import BadInput
from compresslab.recipe.schema import Workload
from compresslab.records import Shape, Size

HARDWARE = st.sampled_from([load_hardware(name) for name in hardware_names()])
ROOFLINE = Hardware(name="ideal", flops=312e12, flops_8bit=624e12, bandwidth=2039e9, source="round figures of an A100")
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
        assert hardware.engine
        # A phone's CPU multiplies two numbers in the time that it reads one byte, a GPU hundreds.
        assert 1 < hardware.flops / hardware.bandwidth < 1000


def test_an_unknown_profile_is_named_with_those_that_exist():
    with pytest.raises(BadInput, match=r"'rtx-4900'; did you mean 'rtx-4090'\?"):
        load_hardware("rtx-4900")


def test_a_machine_without_bandwidth_is_none():
    with pytest.raises(ValidationError):
        Hardware(name="x", flops=1e12, bandwidth=0, source="")


def test_a_profile_with_factors_fitted_elsewhere_says_that_they_are_borrowed():
    measured, borrowed = load_hardware("a100-80g"), load_hardware("h100-sxm")
    assert measured.engine == "vLLM 0.6.3"
    assert borrowed.engine == "borrowed from vLLM 0.6.3 on a100-80g, not measured"
    assert borrowed.layer_overhead == measured.layer_overhead > 0
    assert load_hardware("rtx-4090").engine == borrowed.engine


def test_a_machine_without_an_engine_is_the_roofline_itself():
    assert (ROOFLINE.bandwidth_efficiency, ROOFLINE.compute_efficiency, ROOFLINE.layer_overhead) == (1, 1, 0)


def test_the_factors_of_an_engine_act_on_their_own_part():
    workload = Workload(batch=1, prompt=1, decode=100)
    ideal = seconds(shape(), size(8_000_000_000), ROOFLINE, workload)
    half = ROOFLINE.model_copy(update={"bandwidth_efficiency": 0.5})
    slow = ROOFLINE.model_copy(update={"layer_overhead": 1e-3})
    busy = ROOFLINE.model_copy(update={"compute_efficiency": 0.5})
    assert seconds(shape(), size(8_000_000_000), half, workload) == pytest.approx(2 * ideal)
    assert seconds(shape(), size(8_000_000_000), slow, workload) == pytest.approx(ideal + 101 * 32 * 1e-3)
    assert seconds(shape(), size(8_000_000_000), busy, workload) == ideal
    reading = Workload(batch=8, prompt=4096, decode=1)
    assert seconds(shape(), size(8_000_000_000), busy, reading) > 1.9 * seconds(shape(), size(8_000_000_000), ROOFLINE, reading)


def test_planning_can_import_it_without_a_numerical_library():
    heavy = "{'numpy', 'scipy', 'pandas', 'torch'}"
    modules = "compresslab.density.time.inference_time, compresslab.catalog.hardware as t"
    code = f"import sys, {modules}; t.load_hardware('h20'); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_decoding_one_sequence_is_bound_by_reading_the_weights():
    hardware, workload = ROOFLINE, Workload(batch=1, prompt=1, decode=100)
    assert seconds(shape(), size(8_000_000_000), hardware, workload) == pytest.approx(101 * 16e9 / 2039e9, rel=0.01)


def test_prefill_is_bound_by_compute():
    hardware, workload = ROOFLINE, Workload(batch=8, prompt=4096, decode=1)
    prefill = 2 * 8e9 * 8 * 4096 / 312e12
    assert prefill < seconds(shape(), size(8_000_000_000), hardware, workload) < 1.25 * prefill


def test_weight_only_quantization_shrinks_bytes_but_not_compute():
    hardware = ROOFLINE
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


@given(bits=st.floats(1, 15), less=st.floats(0.1, 0.9), hardware=HARDWARE, workload=WORKLOADS)
def test_time_falls_with_the_bits_and_grows_with_the_prompt(bits, less, hardware, workload):
    n = 1_000_000_000
    given_ = seconds(shape(weight_bits=bits), size(n, bits=bits), hardware, workload)
    assert seconds(shape(weight_bits=bits * less), size(n, bits=bits * less), hardware, workload) <= given_
    longer = workload.model_copy(update={"prompt": 2 * workload.prompt})
    assert seconds(shape(weight_bits=bits), size(n, bits=bits), hardware, longer) > given_


def test_the_overhead_of_the_layers_limits_what_a_small_model_gains():
    workload = Workload(batch=1, prompt=1, decode=500)
    small, large = shape(layers=24), shape(layers=64)
    real = load_hardware("a100-80g")

    def gain(dimensions, n, hardware):
        quarter = dimensions.model_copy(update={"weight_bits": 4.0})
        return seconds(dimensions, size(n), hardware, workload) / seconds(quarter, size(n, bits=4.0), hardware, workload)

    assert gain(small, 500_000_000, ROOFLINE) > 3.5
    assert gain(small, 500_000_000, real) < 1.3
    assert gain(large, 32_000_000_000, real) > 2
    assert n_time(small.model_copy(update={"weight_bits": 4.0}), size(500_000_000, bits=4.0), real, workload) > 200_000_000


def test_weights_save_little_where_the_cache_decides():
    workload = Workload(batch=256, prompt=8192, decode=256)
    model = size(1_000_000_000, bits=4)
    assert n_time(shape(weight_bits=4.0), model, load_hardware("a100-80g"), workload) > 0.9e9


def test_a_mixture_reads_the_experts_that_its_batch_touches():
    hardware = load_hardware("h100-sxm").model_copy(update={"layer_overhead": 0.0})
    mixture, model = shape(experts=64, experts_per_token=4), size(16_000_000_000, active=2_000_000_000)
    one, many = Workload(batch=1, prompt=1, decode=1000), Workload(batch=256, prompt=1, decode=10)
    assert n_time(mixture, model, hardware, one) == pytest.approx(2e9, rel=0.01)
    assert n_time(mixture, model, hardware, many) > 10e9


@pytest.mark.slow
@pytest.mark.parametrize(("experts", "per_token", "batch"), [(8, 2, 1), (8, 2, 5), (64, 6, 16), (128, 8, 100)])
def test_the_experts_touched_are_those_of_random_routing(experts, per_token, batch):
    draw, rounds = random.Random(0), 4000
    met = sum(len({e for _ in range(batch) for e in draw.sample(range(experts), per_token)}) for _ in range(rounds)) / rounds
    # One billion parameters outside the experts and one in each; the time of a read-only machine counts what is read.
    counted, active = (1 + experts) * 10**9, (1 + per_token) * 10**9
    reader = Hardware(name="reader", flops=1e30, bandwidth=2e9, source="2 bytes for each of a billion parameters in a second")
    no_cache = shape(experts=experts, experts_per_token=per_token, key_value_width=0)
    steps = seconds(no_cache, size(counted, active=active), reader, Workload(batch=batch, prompt=1, decode=1))
    assert steps / 2 == pytest.approx(1 + met, rel=0.01)


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
