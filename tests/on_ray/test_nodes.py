import os
import time

from bitcorn_ray.on_ray.nodes import ask_nodes


def test_each_node_answers_for_itself(ray_cluster):
    (answer,) = ask_nodes(os.getpid)
    assert answer.error is None
    assert answer.value != os.getpid()
    assert answer.resources["CPU"] == 2


def test_what_a_node_cannot_do_is_its_error(ray_cluster):
    def fail():
        raise ValueError("no such thing")

    (answer,) = ask_nodes(fail)
    assert answer.error == "ValueError: no such thing"


def test_a_silent_node_is_not_waited_for(ray_cluster):
    (answer,) = ask_nodes(lambda: time.sleep(60), patience=0.5)
    assert answer.error == "did not answer within 0.5 seconds"
    assert ask_nodes(os.getpid)[0].error is None
