"""What the fork server imports once, so that a worker starts in a tenth of a second and not in ten seconds.

Importing torch starts no threads; nothing here may compute anything, or the forked workers would inherit a broken pool.
"""

import bitsandbytes  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

import compresslab.evaluation.harness
import compresslab.models.save
import compresslab.steps.contract  # noqa: F401
