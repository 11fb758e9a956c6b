"""What the fork server imports once, so that a worker starts in a tenth of a second and not in ten seconds.

Importing torch starts no threads; nothing here may compute anything, or the forked workers would inherit a broken pool. bitsandbytes is
left out: it asks CUDA for its devices when it is imported, and a process that has done so cannot fork workers that use them.
"""

import transformers.models.llama.modeling_llama  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

import compresslab.runner.nodes  # noqa: F401
