"""Functions of a notebook that remember their last results (`functools.cache`) can go to the workers of a cluster."""

import pickle
from functools import cache, lru_cache, partial

import cloudpickle

from helpers import cam, data, evaluation  # noqa: F401  # the import teaches pickle


def doubled(x):
    return 2 * x


def test_a_notebooks_function_travels_and_leaves_its_memory_behind():
    doubled.__module__ = "__main__"  # as of a notebook: it cannot be imported elsewhere
    memory = lru_cache(maxsize=1)(doubled)
    assert memory(2) == 4
    there = pickle.loads(cloudpickle.dumps({"memory": memory, "used by": partial(memory, 3)}))
    assert there["memory"] is not memory and there["memory"].cache_info().currsize == 0
    assert there["memory"].cache_parameters() == {"maxsize": 1, "typed": False}
    assert there["memory"](2) == 4 and there["used by"]() == 6
    assert there["used by"].func is there["memory"], "one memory for all who use it, on the other side, too"


def test_so_do_a_cached_partial_and_a_cached_method_of_the_package():
    assert pickle.loads(cloudpickle.dumps(cache(partial(doubled, 4))))() == 8
    there = pickle.loads(cloudpickle.dumps(cache(cam.grad_cam)))
    assert there.__wrapped__ is cam.grad_cam and there is not cam.grad_cam


def test_what_can_be_imported_goes_by_name():
    assert pickle.loads(pickle.dumps(data._photo_rows)) is data._photo_rows
