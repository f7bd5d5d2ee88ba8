"""The environment of processes that a test starts."""

import os


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
"""One thread, no Hub, and no GPU: two processes cannot share one."""
