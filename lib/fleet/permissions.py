"""The accounts of the server's configuration: what the fleet keeps there, and what of it each host may write and read.

Each host has a NATS account of its own and sees of the fleet's account only what is named here. Permissions of users in
one account would not do: whoever may ask JetStream anything names the subject of the answer, and by a direct get of its
own record with the answer to `$KV.hosts.OTHER` a host would write the record of another (tried with nats-server 2.9.10;
tests/integration/test_fleet_security.py). From account to account answers come back to whoever asked, and nowhere else.
No host makes consumers: they deliver in the account of their stream, and to any subject there that their maker names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

#: Key-value buckets: a host's record under its name, orders to a host under its name, entries of the queue by their id;
#: limits by their account, and what a host has spent under its name.
BUCKETS = ("hosts", "orders", "entries", "limits", "spending")
QUEUE = "FLEET_QUEUE"
#: Followed by a label, or `any`, and a priority.
QUEUE_SUBJECT = "fleet.queue"
#: Followed by a bucket and a key: the server says there what it has just stored.
NEWS_SUBJECT = "fleet.news"
#: Followed by the host that a letter is for and the one that sends it. The fleet's account makes the second of the
#: first: with one subject for both the server finds a circle in the imports, by chance (tried with 2.9.10).
SEND_SUBJECT, MAIL_SUBJECT = "fleet.send", "fleet.mail"
#: The account that owns all that the fleet keeps; the machine that founded it is its user.
FLEET_ACCOUNT = "FLEET"

#: Reads only, of streams that let themselves be read directly.
_READS = ("$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.*.>")
#: Work is put by one host, taken by another and ended by either; a limit is met by one, and found over by another.
_SHARED = (
    "$KV.entries.*",
    "$KV.limits.*",
    f"{QUEUE_SUBJECT}.*.*",
    f"$JS.API.CONSUMER.INFO.{QUEUE}.*",
    f"$JS.ACK.{QUEUE}.>",
)
#: A request for work gets as many answers as there is work.
_PULL = f"$JS.API.CONSUMER.MSG.NEXT.{QUEUE}.*"


def inbox(host: str) -> str:
    """Where answers to a host arrive."""
    return f"_INBOX_{host}"


def projects_of(host: str) -> str:
    """The object store that only this host writes: bundles of projects and of results. All hosts read it."""
    return f"projects-{host}"


def letter_to(host: str, sender: str) -> str:
    """Where a host sends a letter to another."""
    return f"{SEND_SUBJECT}.{host}.{sender}"


def letterbox(host: str) -> tuple[str, ...]:
    """Where letters to a host arrive: by the second subject, and where there are no accounts by the first."""
    return (f"{SEND_SUBJECT}.{host}.*", f"{MAIL_SUBJECT}.{host}.*")


def own(host: str) -> tuple[str, ...]:
    """The subjects that this host alone may publish to."""
    projects = projects_of(host)
    return (
        f"$KV.hosts.{host}",
        f"$KV.orders.{host}",
        f"$KV.spending.{host}",
        f"$O.{projects}.>",
        f"$JS.API.STREAM.MSG.GET.OBJ_{projects}",
        f"$JS.API.STREAM.PURGE.OBJ_{projects}",
        f"{SEND_SUBJECT}.*.{host}",
    )


def accounts(founder: str, hosts: Mapping[str, str]) -> str:
    """The accounts of a server's configuration: of the user who founded the fleet, and of each host by its user."""
    exports = [
        *(_service(subject) for subject in (*_READS, *_SHARED)),
        _service(_PULL, answers="Stream"),
        f'{{stream: "{NEWS_SUBJECT}.>"}}',
        *(_service(subject, only=_account(host)) for host in hosts for subject in own(host)),
    ]
    lines = [
        f'  "{FLEET_ACCOUNT}": {{',
        "    jetstream: enabled",
        *_users(founder),
        f'    mappings: {{"{SEND_SUBJECT}.*.*": "{MAIL_SUBJECT}.$1.$2"}}',
        *_listed("exports", exports),
        *_listed("imports", (_brought_to(host) for host in hosts)),
        "  }",
        *(line for host, user in hosts.items() for line in _host(host, user)),
    ]
    return "\n".join(["accounts: {", *lines, "}", ""])


def _host(host: str, user: str) -> list[str]:
    services = [f'{{service: {{account: "{FLEET_ACCOUNT}", subject: "{subject}"}}}}' for subject in _services(host)]
    news = f'{{stream: {{account: "{FLEET_ACCOUNT}", subject: "{NEWS_SUBJECT}.>"}}}}'
    mail = _service(f"{MAIL_SUBJECT}.{host}.*", only=FLEET_ACCOUNT)
    lists = [*_listed("exports", [mail]), *_listed("imports", [*services, news])]
    return [f'  "{_account(host)}": {{', *_users(user), *lists, "  }"]


def _brought_to(host: str) -> str:
    """Letters to a host, as they come out of the mapping: they go into its account, and into no other."""
    return f'{{service: {{account: "{_account(host)}", subject: "{MAIL_SUBJECT}.{host}.*"}}}}'


def _services(host: str) -> Sequence[str]:
    return (*_READS, *_SHARED, _PULL, *own(host))


def _account(host: str) -> str:
    return f"HOST-{host}"


def _users(user: str) -> list[str]:
    return [f'    users: [{{user: "CN={user}"}}]']


def _listed(name: str, items: Iterable[str]) -> list[str]:
    return [f"    {name}: [", *(f"      {item}" for item in items), "    ]"]


def _service(subject: str, *, answers: str = "Singleton", only: str | None = None) -> str:
    limit = f', accounts: ["{only}"]' if only else ""
    return f'{{service: "{subject}", response_type: {answers}{limit}}}'
