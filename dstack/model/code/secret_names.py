"""Which files look like secrets, by their names."""

from __future__ import annotations

import re
from fnmatch import translate

NAMES = (
    # Settings of applications: https://github.com/motdotla/dotenv, direnv
    *(".env", ".env.*", "*.env", ".envrc", "secrets.yaml", "secrets.yml", "secrets.json", "secrets.toml"),
    # Private keys: ssh-keygen(1), openssl(1), PuTTY, Java, KeePass
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx"),
    # Logins: curl's netrc(5), git-credential-store(1), npm, PyPI, PostgreSQL, Docker, Kubernetes, HashiCorp Vault
    *(".netrc", "_netrc", ".git-credentials", ".npmrc", ".pypirc", ".pgpass", ".my.cnf", ".htpasswd", ".dockercfg"),
    *("*.docker/config.json", "*.kube/config", "kubeconfig", "*.kubeconfig", ".vault-token"),
    # Clouds and hubs: Google, AWS, s3cmd, boto, rclone, Terraform, Kaggle, Hugging Face
    *("credentials*.json", "client_secret*.json", "service-account*.json", "service_account*.json"),
    *("*.aws/credentials", "*.aws/config", ".s3cfg", ".boto", "rclone.conf", "*.tfstate", "*.tfvars"),
    *("kaggle.json", "*.huggingface/token", "*huggingface/stored_tokens"),
)
"""Patterns for the last part of a path, or for the last two parts if they contain a slash. Case does not matter."""

HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults", "*.example.env", "*.pub.pem")
"""Exceptions: files that are written to be shared."""


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


_NAMES, _HARMLESS = _any_of(NAMES), _any_of(HARMLESS)


def looks_secret(path: str) -> bool:
    """Whether a file with this path probably holds a secret."""
    *folders, name = path.lower().split("/")
    both = "/".join([*folders[-1:], name])
    return bool(_NAMES.match(name) or _NAMES.match(both)) and not _HARMLESS.match(name)
