"""JupyterHub for one trusted room: a password and a folder for each learner, on one machine.

`pefthelpers room NAMES --out FOLDER` copies this file into FOLDER, beside the passwords and the notebooks.
What was measured with it, and what it does not protect from: `docs/room.md`.
"""

import hashlib
import hmac
import json
import os
import resource
import shutil
import sys
from pathlib import Path

from jupyterhub.auth import Authenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner

ROOM = Path(__file__).resolve().parent
TOOLS = Path(sys.prefix)  # the environment of `make room`; the proxy lies in it too
MAIN = Path(os.environ["PEFTHELPERS_VENV"])  # the pinned environment: JupyterLab's pages are there
GIB = 2**30
MEMORY_GIB = 4  # of one process: a runaway cell gets a MemoryError, the room goes on
IDLE_S = 3600  # a kernel without work for so long is stopped, and then its server


class OnePasswordEach(Authenticator):
    """The names and passwords of `learners.json`, kept as scrypt digests; nobody signs up."""

    async def authenticate(self, handler, data):
        """Return the name, or None for an unknown one or a wrong password."""
        learners = json.loads((ROOM / "learners.json").read_text("utf-8"))
        known = learners.get(data["username"], {"salt": "00", "digest": ""})
        salt, given = bytes.fromhex(known["salt"]), data["password"].encode()
        digest = hashlib.scrypt(given, salt=salt, n=2**14, r=8, p=1).hex()
        return data["username"] if hmac.compare_digest(digest, known["digest"]) else None


class InOneAccount(SimpleLocalProcessSpawner):
    """A process of the account that started the hub, with its own home and a limit of memory."""

    def make_preexec_fn(self, name):
        """Return what the new process does first: go home, and bound its memory."""
        go_home = super().make_preexec_fn(name)

        def first():
            go_home()
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB * GIB,) * 2)

        return first


def hand_out(spawner):
    """Put the notebooks into a learner's home at the first start: read-only originals, and a copy to work in."""
    home = Path(spawner.home_dir)
    for name in ("originals", "notebooks"):
        if not (home / name).exists():
            part = home / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(ROOM / "notebooks", part)
            for file in part.rglob("*"):
                if name == "originals" and file.is_file():
                    file.chmod(0o444)
            part.rename(home / name)


c = get_config()  # noqa: F821 - JupyterHub gives it
# This machine alone. For the room: http://:8000, behind TLS if the network is not yours.
c.JupyterHub.bind_url = os.environ.get("ROOM_URL", "http://127.0.0.1:8000")
c.JupyterHub.hub_bind_url = os.environ.get("ROOM_HUB_URL", "http://127.0.0.1:8081")
c.ConfigurableHTTPProxy.api_url = os.environ.get("ROOM_PROXY_URL", "http://127.0.0.1:8001")
c.ConfigurableHTTPProxy.command = str(TOOLS / "node_modules/.bin/configurable-http-proxy")
c.JupyterHub.db_url = f"sqlite:///{ROOM}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(ROOM / "cookie_secret")
c.JupyterHub.pid_file = str(ROOM / "hub.pid")
c.JupyterHub.authenticator_class = OnePasswordEach
c.Authenticator.allow_all = True  # all who have a password
c.JupyterHub.spawner_class = InOneAccount
c.SimpleLocalProcessSpawner.home_dir_template = str(ROOM / "homes" / "{username}")
c.Spawner.cmd = [str(TOOLS / "bin/jupyterhub-singleuser")]
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.start_timeout = c.Spawner.http_timeout = 180
c.Spawner.pre_spawn_hook = hand_out
c.Spawner.environment = {
    "JUPYTER_PATH": str(MAIN / "share/jupyter"),
    "JUPYTERLAB_DIR": str(MAIN / "share/jupyter/lab"),
    # Thirty kernels that each take every core wait for each other.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
c.Spawner.args = [
    f"--MappingKernelManager.cull_idle_timeout={IDLE_S}",
    "--MappingKernelManager.cull_interval=300",
    "--MappingKernelManager.cull_connected=True",
    "--ServerApp.terminals_enabled=False",
]
c.JupyterHub.concurrent_spawn_limit = 5
c.JupyterHub.load_roles = [
    {
        "name": "culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["culler"],
    }
]
c.JupyterHub.services = [
    {
        "name": "culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={IDLE_S}"],
    }
]
