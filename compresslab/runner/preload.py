"""What the fork server imports once, so that a worker starts in a tenth of a second and not in ten seconds.

Importing torch starts no threads; nothing here may compute anything, or the forked workers would inherit a broken pool. Nor may anything
ask an accelerator's driver for its devices, because the forks of a process that has done so cannot use them (`runner.server` then starts a
new interpreter for each worker, which takes seconds). bitsandbytes asks when it is imported and is left out. So does torchao, which
transformers imports: it is told that there is no CUDA, by which it decides about kernels of formats (MX) that are not used here.
"""

import torch
from torch.utils import _triton

_available = torch.cuda.is_available
torch.cuda.is_available = lambda: False
try:
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import compresslab.runner.nodes  # noqa: F401
finally:
    torch.cuda.is_available = _available
# torchao asks for Triton, too, and torch keeps the answer, which was about no device.
if hasattr(_triton.has_triton, "cache_clear"):
    _triton.has_triton.cache_clear()
