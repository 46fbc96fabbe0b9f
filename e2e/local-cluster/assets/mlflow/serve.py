"""Becomes an MLflow server: `serve.py DIRECTORY [arguments of mlflow server]`.

`mlflow server` starts uvicorn as a child and waits for it. Here the process turns into uvicorn instead, so that whoever
holds its process id holds the server, and nothing stays behind when that one is killed. Files that MLflow makes in the
working directory go to DIRECTORY.
"""

import os
import sys

import mlflow.server
from mlflow.cli import cli


def become(command, extra_env=None, **_):
    os.execve(command[0], command, {**os.environ, **(extra_env or {})})


os.chdir(sys.argv[1])
mlflow.server._exec_cmd = become
cli(["server", *sys.argv[2:]], prog_name="mlflow")
