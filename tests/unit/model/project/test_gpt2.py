"""The founding example, row by row of its README."""

from __future__ import annotations

import subprocess

import pytest

from dstack.model.job import cache_key
from dstack.model.job.script import expanded, script
from dstack.model.project import environment
from dstack.model.project.graph import closure
from dstack.model.project.project import Project, warnings
from dstack.model.project.variables import apply, config_args
from dstack.model.project.workflow import Artifact
from tests.unit.model.project.projects import GPT2, read

RUN = {"run_name": "brave-otter-7", "job_id": "0a1b2c3d4e5f"}
JOB = RUN["job_id"], RUN["run_name"]
FINETUNE = "finetune-model"


@pytest.fixture(scope="module")
def gpt2() -> Project:
    return read(GPT2)


def arguments(project: Project, *overrides: tuple[str, str]) -> str:
    return config_args(apply(project, FINETUNE, overrides)[FINETUNE].own)


def test_a_run_name_of_the_user_gives_way_to_the_reserved_one(gpt2: Project) -> None:
    assert gpt2.own[FINETUNE]["run_name"] == "run1"
    variables = apply(gpt2, FINETUNE, [])[FINETUNE]
    built = environment.build(variables, {}, {}, RUN)

    assert built["run_name"] == "brave-otter-7"
    assert "RUN_NAME" not in built
    assert "run_name" not in config_args(variables.own)
    assert gpt2.warnings == warnings(gpt2, FINETUNE) == ()
    (note,) = gpt2.notes
    assert note.startswith("variable 'run_name' has a reserved name")


def test_artifacts_of_the_job_lie_where_the_trainer_writes(gpt2: Project) -> None:
    variables = apply(gpt2, FINETUNE, [])[FINETUNE]
    ready = expanded(gpt2.workflows[FINETUNE], variables, *JOB)
    built = environment.build(variables, ready.env, {}, RUN)

    assert ready.artifacts == ("models/124M", "checkpoint/0a1b2c3d4e5f", "samples/0a1b2c3d4e5f")
    assert built["job_id"] == "0a1b2c3d4e5f"
    assert "--run_name $job_id --model_name $model" in script(ready, variables, "0a1b2c3d4e5f", "brave-otter-7")


def test_false_leaves_the_flag_out_and_true_passes_it_bare(gpt2: Project) -> None:
    assert "memory_saving_gradients" not in arguments(gpt2)
    words = arguments(gpt2, ("memory_saving_gradients", "True")).split()
    assert words[words.index("--memory_saving_gradients") + 1] == "--twremat_memlimit"


def test_none_leaves_the_option_out(gpt2: Project) -> None:
    assert gpt2.own[FINETUNE]["val_dataset"] == "None"
    assert "val_dataset" not in arguments(gpt2)
    assert "--val_dataset val.npz" in arguments(gpt2, ("val_dataset", "val.npz"))


def test_numbers_reach_the_command_as_written(gpt2: Project) -> None:
    assert "--learning_rate 0.00002 " in arguments(gpt2)
    assert "--noise 0.0 " in arguments(gpt2)


def test_values_pass_as_written_and_quoted_where_needed(gpt2: Project) -> None:
    assert "--encoding utf-8 " in arguments(gpt2)
    assert "--twremat_memlimit 12GB " in arguments(gpt2)
    assert "--dataset 'my input.npz' " in arguments(gpt2, ("dataset", "my input.npz"))


def test_global_variables_belong_to_every_workflow_but_not_to_config_args(gpt2: Project) -> None:
    variables = apply(gpt2, FINETUNE, [("model", "117M")])
    for name in gpt2.workflows:
        values = environment.build(variables[name], {}, {}, RUN)
        assert values["model"] == values["MODEL"] == "117M"
        assert values["models_dir"] == values["MODELS_DIR"] == "model"
    words = config_args(variables[FINETUNE].own).split()
    assert "--model" not in words
    assert "--models_dir" not in words


def test_config_args_as_a_whole(gpt2: Project) -> None:
    assert arguments(gpt2, ("batch-size", "4")) == (
        "--dataset input.npz --combine 50000 --encoding utf-8 --batch_size 4 --learning_rate 0.00002 "
        "--accumulate_gradients 1 --twremat_memlimit 12GB --optimizer adam --noise 0.0 --top_k 40 --top_p 0.0 "
        "--restore_from latest --sample_every 100 --sample_length 1023 --sample_num 1 --save_every 1000 "
        "--val_batch_size 2 --val_batch_count 40 --val_every 0"
    )


def test_one_job_of_download_model_serves_both(gpt2: Project) -> None:
    names = [workflow.name for workflow in closure(gpt2.workflows, FINETUNE)]
    assert names == ["download-model", "encode-dataset", "finetune-model"]

    keys = [
        cache_key.key(cache_key.components(gpt2.workflows["download-model"], "i", [], variables["download-model"], {}))
        for variables in (apply(gpt2, FINETUNE, []), apply(gpt2, "encode-dataset", []))
    ]
    assert keys[0] == keys[1]


def test_the_models_are_an_artifact_of_dependency_and_dependent(gpt2: Project) -> None:
    variables = apply(gpt2, FINETUNE, [("model", "117M")])
    both = [expanded(gpt2.workflows[name], variables[name], *JOB) for name in ("download-model", FINETUNE)]
    assert [workflow.outputs[0] for workflow in both] == [Artifact(path="models/117M")] * 2


def test_any_image_reference_works(gpt2: Project) -> None:
    images = {workflow.image for workflow in gpt2.workflows.values()}
    assert images == {"tensorflow/tensorflow:1.15.0-py3"}
    variables = apply(gpt2, FINETUNE, [])[FINETUNE]
    assert expanded(gpt2.workflows[FINETUNE], variables, *JOB).image == "tensorflow/tensorflow:1.15.0-py3"


def test_the_script_is_one_that_bash_reads(gpt2: Project) -> None:
    variables = apply(gpt2, FINETUNE, [])[FINETUNE]
    text = script(gpt2.workflows[FINETUNE], variables, "0a1b2c3d4e5f", "brave-otter-7")
    assert text.splitlines()[1] == "pip3 install -r requirements.txt"
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
