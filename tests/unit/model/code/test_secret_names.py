"""Names of files that people send by mistake, and names that only resemble them."""

from __future__ import annotations

import pytest

from dstack.model.code.secret_names import looks_secret

SECRET = """
.env .env.local prod.env config/.ENV .envrc .netrc _netrc .git-credentials id_rsa keys/id_ed25519
server.pem tls/Server.KEY cert.p12 login.pfx box.ppk .npmrc .pypirc .pgpass .aws/credentials
home/.aws/credentials .docker/config.json .kube/config kubeconfig credentials.json credentials_prod.json
client_secret_123.json service-account.json kaggle.json .huggingface/token secrets.yaml
terraform.tfstate prod.tfvars .vault-token
"""
HARMLESS = """
.env.example .env.sample .env.template env.py environment.yaml id_rsa.pub keys.py pem.md token
config/settings.json config.json credentials.py docs/credentials.md aws/credentials/readme.md
mycredentials.json .github/secrets.md model.keras keyboard.json configs/docker/config.json.md
src/netrc.py tokenizer.json secrets.py
"""


@pytest.mark.parametrize("path", SECRET.split())
def test_what_looks_like_a_secret(path: str) -> None:
    assert looks_secret(path)


@pytest.mark.parametrize("path", HARMLESS.split())
def test_what_does_not(path: str) -> None:
    assert not looks_secret(path)
