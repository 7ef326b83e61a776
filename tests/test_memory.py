import os
import subprocess
import sys

import pytest

# Arrays that are freed together are more than glibc keeps by itself.
_FAULTS = """
import resource, sys
import numpy as np
from bitcorn_ray.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def together():
    return [np.ones(1 << 20) for _ in range(6)]

together()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    together()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept, **variables):
    """Pages that had to be had anew from the system while 48 MB were taken and freed ten times."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", _FAULTS, "kept" if kept else ""]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of others is left alone")
def test_what_is_freed_is_used_again():
    given_back = faults(kept=False)
    if given_back < 1_000:
        pytest.skip("this system's allocator keeps what is freed by itself")
    assert faults(kept=True) < given_back / 10
    assert faults(kept=True, MALLOC_MMAP_THRESHOLD_="100000") > given_back / 2  # as the user has said


_GIVEN_BACK = """
import numpy as np
from bitcorn_ray.memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
[np.ones(1 << 17) for _ in range(100)]  # 1 MB each: none is large enough to be given back by itself
before = resident()
give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of others is left alone")
def test_what_is_kept_can_be_given_back():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", _GIVEN_BACK], env=environment, check=True, capture_output=True)
    assert int(done.stdout) > 50_000_000
