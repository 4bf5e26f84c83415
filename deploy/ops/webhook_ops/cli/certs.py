"""`webhook-cli certs`: certificates of a small authority of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from webhook_shared.settings import IdentitySection

from webhook_ops.addresses import SERVICES
from webhook_ops.authority import Authority
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import console

app = typer.Typer(no_args_is_help=True, help="Make certificates for development and small networks.")

AUTHORITY = "Webhook System development"
OPERATOR = "spiffe://webhook/operator"
#: Names that a process of ours has on one machine, in compose and in Kubernetes.
HOSTS = ("localhost", "127.0.0.1", "::1", *SERVICES)

Directory = Annotated[Path, typer.Option("--out", help="Where the authority and its certificates are.")]
Host = Annotated[
    list[str] | None, typer.Option("--host", help="One more name or address to serve under; repeat it.")
]
_DEFAULT = Path("var/certs")


@app.command()
def dev(out: Directory = _DEFAULT, host: Host = None) -> None:
    """Make an authority, a certificate for all our processes, and one for an operator.

    An authority that is there already is kept and only the certificates are made anew; processes that run
    take them up by themselves.

    Example: `webhook-cli certs dev --host webhooks.example.org`
    """
    authority = _authority(out)
    ours = IdentitySection().internal_certificate
    authority.issue("webhook internal", hosts=(*HOSTS, *(host or ())), uris=(ours,)).write(out, "internal")
    authority.issue("webhook operator", uris=(OPERATOR,)).write(out, "operator")
    console().print(_next_steps(out), markup=False, soft_wrap=True)


@app.command()
def issue(
    name: Annotated[str, typer.Argument(help="The caller: spiffe://acme/ci, or a plain name.")],
    out: Directory = _DEFAULT,
    file: Annotated[str, typer.Option("--file", help="Name of the files; else the end of NAME.")] = "",
    host: Host = None,
) -> None:
    """Make a certificate for another caller. What it may do is said in `webhook.identity.certificates`.

    Example: `webhook-cli certs issue spiffe://acme/ci`
    """
    uris = (name,) if "://" in name else ()
    stem = file or name.rstrip("/").rpartition("/")[2]
    if not stem.replace("-", "").replace("_", "").isalnum() or stem == "ca":
        fail("that is no name for files", Exit.USAGE, reason="FILE_NAME", hint="give one with --file")
    _authority(out).issue(stem, uris=uris, hosts=host or ()).write(out, stem)
    console().print(f"{out / stem}.crt and {stem}.key name {name}", markup=False)


def _authority(directory: Path) -> Authority:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Authority.kept(directory, AUTHORITY)
    except (OSError, ValueError, TypeError) as error:
        fail(
            f"the authority in {directory} can't be used ({type(error).__name__})",
            Exit.FAILED,
            reason="AUTHORITY_UNUSABLE",
            hint="choose another directory with --out",
        )


def _next_steps(out: Path) -> str:
    where = out.resolve()
    return f"""\
For every process of ours:
  export WEBHOOK_TLS_CA_FILE={where}/ca.crt
  export WEBHOOK_TLS_CERT_FILE={where}/internal.crt
  export WEBHOOK_TLS_KEY_FILE={where}/internal.key
For webhooks over https:
  export WEBHOOK_HTTP_TLS_CERT_FILE={where}/internal.crt
  export WEBHOOK_HTTP_TLS_KEY_FILE={where}/internal.key
For an operator's certificate without an API key, in config.yaml:
  webhook: {{identity: {{certificates: [{{name: "{OPERATOR}", tenants: ["*"], roles: [operator]}}]}}}}
Keep {where}/ca.key away from the processes: who has it can be anybody."""
