"""The registry of sources that stands in the configuration, the environment and the catalogue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from webhook_security.catalogue import GENERIC
from webhook_security.registry.definitions import Definition, Registered
from webhook_security.secrets import secret
from webhook_security.secrets.secret import Secret
from webhook_security.settings import DEFAULT_TENANT, ROUTE_NAME, SecretEntry, SecuritySection

REREAD_S = 2.0
"""How soon a secret that changed in its file is noticed, seconds."""

VARIABLE_SUFFIX = "_WEBHOOK_SECRET"
"""ACME_CI_WEBHOOK_SECRET is the secret of the tool acme-ci."""


class ConfiguredSources:
    """What the settings name, and each variable `<TOOL>_WEBHOOK_SECRET`.

    Where nothing is verified no secret is needed, so that each sender of the catalogue has a route.

    Their secrets are references: which there are stays, what they say may change.

    Args:
        kinds: The names of the catalogue's entries.
        security: Secrets and tenants.
        environ: Where `<TOOL>_WEBHOOK_SECRET` is looked for; the process's environment where it is None.
    """

    name = "configuration"

    def __init__(
        self, kinds: Sequence[str], security: SecuritySection, environ: Mapping[str, str] | None = None
    ) -> None:
        self._kinds, self._security = kinds, security
        self._environ = os.environ if environ is None else environ
        self._definitions = self._defined()
        self._references = frozenset(one.reference for source in self._definitions for one in source.secrets)

    async def read(self) -> Registered:
        """What it says; never raises: a reference that can't be read is a secret that is not there."""
        # A file may lie on a slow mount; nobody else must wait for it.
        return await asyncio.to_thread(self.registered)

    def registered(self) -> Registered:
        """The same, at once."""
        return Registered(self._definitions, secret.read(self._references))

    def _defined(self) -> list[Definition]:
        tools = {DEFAULT_TENANT: self._default_tenant()}
        for tenant, section in self._security.tenants.items():
            tools[tenant] = {**tools.get(tenant, {}), **section.signature_secrets}
        return [
            Definition(tenant, tool, tuple(Secret.of(entry) for entry in entries))
            for tenant, named in tools.items()
            for tool, entries in named.items()
        ]

    def _default_tenant(self) -> dict[str, Sequence[SecretEntry]]:
        named = {*self._security.source_kinds, *self._security.sources}
        if not self._security.enable_signature_verification:
            named |= set(self._kinds) - {GENERIC}
        for variable in self._environ:
            tool = variable.removesuffix(VARIABLE_SUFFIX).lower().replace("_", "-")
            if variable.endswith(VARIABLE_SUFFIX) and ROUTE_NAME.fullmatch(tool):
                named.add(tool)
        # Their secrets are told apart from another tool's by the variable, so `acme_ci` needs a reference.
        variables = {tool: _variable_of(tool) for tool in named}
        return {**variables, **self._security.signature_secrets}


def _variable_of(tool: str) -> Sequence[SecretEntry]:
    return (SecretEntry(ref=f"env:{tool.upper().replace('-', '_')}{VARIABLE_SUFFIX}"),)
