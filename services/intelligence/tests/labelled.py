"""Queries, and the events that answer them: written by hand in the words of webhooks, three per topic.

A query of a topic shares few words with its events on purpose. Every event of another topic is a wrong
answer, and topics come in neighbourhoods (databases, sign-in, payments...), so that many wrong answers are
near ones.

LOOKUPS are of the other kind: somebody remembers a name, a number or a few words, as people do who search.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """Events about one thing, and what somebody would ask who looks for them."""

    queries: tuple[str, ...]
    events: tuple[str, ...]


TOPICS = (
    Topic(
        ("uploads of big files never finish", "transfer of large attachments hangs"),
        (
            "octocat opened issue 17: Upload stalls above 2 GB\nThe bar stays at 99 %, then it times out.",
            "alice commented on issue 17: parts are retried forever when the proxy cuts the connection",
            "hubot merged pull request 42: Resume interrupted multipart uploads\nFixes #17.",
        ),
    ),
    Topic(
        ("pods killed because they ran out of RAM", "memory limit exceeded in kubernetes"),
        (
            "alert triggered: container payments-api OOMKilled (exit code 137) on node eu-3",
            "bob commented on incident 88: heap grows by 200 MB per hour, the cgroup limit is 1Gi",
            "carol opened pull request 91: Raise resources.limits.memory of payments-api to 2Gi",
        ),
    ),
    Topic(
        ("users cannot sign in", "authentication is broken for customers"),
        (
            "dave opened issue 230: Login page answers 'invalid credentials' with the right password",
            "erin commented on issue 230: the session cookie is rejected since the SameSite change",
            "workflow run 7711 failed: e2e / login with password and second factor",
        ),
    ),
    Topic(
        ("single sign-on with SAML fails", "identity provider login problem for enterprises"),
        (
            "frank opened issue 231: SSO with Okta ends in a redirect loop",
            "grace commented on issue 231: the SAML assertion's audience does not match our entity id",
            "heidi opened pull request 235: Accept several ACS URLs per organisation in SAML",
        ),
    ),
    Topic(
        ("the database disk is full", "no space left for postgres"),
        (
            "alert triggered: volume pg-data-1 at 98 %",
            "ivan commented on incident 90: WAL files pile up because the replication slot is inactive",
            "judy closed incident 90: dropped the dead replication slot, 400 GB are free again",
        ),
    ),
    Topic(
        ("slow SQL queries", "database performance regression from a missing index"),
        (
            "mallory opened issue 301: Orders list takes 12 s\nEXPLAIN shows a sequential scan over orders.",
            "niaj opened pull request 305: Add index on orders (customer_id, created_at)",
            "olivia commented on pull request 305: p95 of the endpoint fell from 11 s to 40 ms in staging",
        ),
    ),
    Topic(
        ("deadlocks between transactions", "lock contention in the database"),
        (
            "peggy opened issue 310: 'deadlock detected' when two carts check out at once",
            "rupert commented on issue 310: both update stock rows in different order",
            "sybil merged pull request 311: Lock stock rows sorted by id",
        ),
    ),
    Topic(
        ("credit card charged twice", "customers billed double"),
        (
            "trent opened issue 402: Duplicate charge after clicking pay again",
            "payment_intent succeeded twice for order 9917 within 3 seconds",
            "victor opened pull request 404: Send an idempotency key with each charge",
        ),
    ),
    Topic(
        ("refund did not arrive", "money back to buyer is stuck"),
        (
            "walter opened ticket SUP-311: Customer waits for his reimbursement since March",
            "charge.refund.updated: status failed, reason expired_or_canceled_card",
            "wendy commented on SUP-311: sent by bank transfer instead",
        ),
    ),
    Topic(
        ("invoice PDF is wrong", "VAT on bills is miscalculated"),
        (
            "yusuf opened issue 410: Tax line shows 19 % for reverse charge countries",
            "zoe opened pull request 411: Round per line item before summing the invoice",
            "amy commented on issue 410: accounting needs corrected documents for Q3",
        ),
    ),
    Topic(
        ("TLS certificate expired", "https handshake errors because of an outdated cert"),
        (
            "alert triggered: x509: certificate has expired or is not yet valid for api.example.com",
            "ben commented on incident 95: cert-manager could not renew, the DNS challenge failed",
            "chloe closed incident 95: renewed by hand, automation fixed in pull request 501",
        ),
    ),
    Topic(
        ("DNS does not resolve", "name lookup failures in the cluster"),
        (
            "dan opened incident 96: NXDOMAIN for redis.internal since 10:02",
            "eve commented on incident 96: CoreDNS pods are crash looping after the config map change",
            "workflow run 8002 failed: getaddrinfo ENOTFOUND registry.internal",
        ),
    ),
    Topic(
        ("flaky tests in CI", "tests fail randomly and pass on retry"),
        (
            "finn opened issue 520: test_reconnect fails one time in ten",
            "workflow run 8100 failed, then succeeded on attempt 2: unit tests",
            "gina opened pull request 522: Wait for the listener, do not sleep 100 ms in test_reconnect",
        ),
    ),
    Topic(
        ("continuous integration takes too long", "speed up the build pipeline"),
        (
            "hank opened issue 530: Pipeline needs 48 minutes",
            "iris opened pull request 531: Cache the compiler output between runs",
            "jack commented on pull request 531: down to 14 minutes with four shards",
        ),
    ),
    Topic(
        ("release of a new version", "publish package to the registry"),
        (
            "release v3.2.0 published by kate",
            "workflow run 8200 succeeded: publish to npm and PyPI",
            "liam pushed tag v3.2.0 to octo/hello",
        ),
    ),
    Topic(
        ("roll back the bad deployment", "revert to the previous release in production"),
        (
            "deployment 77 of v3.2.0 to production failed: health checks red",
            "mona opened pull request 540: Revert 'Switch to the new scheduler'",
            "deployment 78 of v3.1.4 to production succeeded",
        ),
    ),
    Topic(
        ("vulnerable dependency must be updated", "security advisory for a library that we use"),
        (
            "dependabot alert: Prototype pollution in lodash < 4.17.21 (high)",
            "dependabot opened pull request 550: Bump lodash from 4.17.20 to 4.17.21",
            "nora commented on pull request 550: CVE-2021-23337 reaches our renderer, please ship today",
        ),
    ),
    Topic(
        ("leaked password in the repository", "secret committed to git"),
        (
            "secret scanning alert: AWS access key found in config/dev.env",
            "oscar pushed 1 commit to main: remove credentials from history",
            "paul closed alert 12: key revoked and rotated",
        ),
    ),
    Topic(
        ("cross site scripting in comments", "HTML injection vulnerability in the forum"),
        (
            "quinn reported advisory GHSA-7: script tags survive the sanitizer in forum posts",
            "rosa opened pull request 560: Escape user markdown before rendering",
            "sam commented on pull request 560: add a content security policy as well",
        ),
    ),
    Topic(
        ("typo in documentation", "README spelling corrections"),
        (
            "tara opened pull request 570: Fix 'recieve' in the getting started guide",
            "ugo opened issue 571: Broken anchor on the installation page",
            "vera merged pull request 570: Fix 'recieve' in the getting started guide",
        ),
    ),
    Topic(
        ("translate the app into Japanese", "localisation and internationalisation work"),
        (
            "will opened issue 580: Support ja-JP in the settings screens",
            "xena opened pull request 581: Extract all strings into message catalogs",
            "yara commented on issue 580: plural forms are wrong in Polish too",
        ),
    ),
    Topic(
        ("dark theme request", "night mode colours of the interface"),
        (
            "zack opened issue 590: Add a dark colour scheme",
            "abby opened pull request 592: Use CSS variables for all colours, follow prefers-color-scheme",
            "cole commented on pull request 592: contrast of the sidebar is too low on black",
        ),
    ),
    Topic(
        ("blind people cannot use the form", "accessibility for screen readers"),
        (
            "dora opened issue 600: Inputs have no labels that NVDA announces",
            "evan opened pull request 601: Add aria attributes and focus order to the checkout",
            "fay commented on issue 600: WCAG audit is due in May",
        ),
    ),
    Topic(
        ("app crashes on Android start", "mobile client exits right after launch"),
        (
            "gus opened issue 610: NullPointerException in MainActivity.onCreate on Pixel 4",
            "crash group 4471: 1,204 users affected since build 512",
            "hope opened pull request 612: Guard against missing intent extras",
        ),
    ),
    Topic(
        ("push notifications do not reach phones", "mobile alerts missing on iOS"),
        (
            "ian opened issue 620: No banners on iPhone since the update",
            "jill commented on issue 620: APNs answers 410, device tokens are stale",
            "kurt opened pull request 622: Drop device tokens that Apple reports as unregistered",
        ),
    ),
    Topic(
        ("battery drains quickly", "app uses too much energy in the background"),
        (
            "lena opened issue 630: Phone is empty by noon with location sharing on",
            "max commented on issue 630: GPS is polled each second even when still",
            "nina merged pull request 633: Use significant location changes instead of polling",
        ),
    ),
    Topic(
        ("message queue backlog grows", "consumers cannot keep up with events"),
        (
            "alert triggered: consumer lag of orders-events above 100,000",
            "omar commented on incident 99: one partition is hot, its worker is at 100 % CPU",
            "pia opened pull request 640: Spread tenants over 24 partitions",
        ),
    ),
    Topic(
        ("duplicate events are processed", "webhook delivered more than once"),
        (
            "quin opened issue 650: Handler runs twice for one delivery id",
            "rory commented on issue 650: the acknowledgement times out and the sender redelivers",
            "sara opened pull request 652: Deduplicate by delivery id for 24 hours",
        ),
    ),
    Topic(
        ("rate limit reached at an API", "too many requests are rejected"),
        (
            "tess opened issue 660: GitHub answers 403 'secondary rate limit' during the nightly sync",
            "uma opened pull request 661: Honour Retry-After and back off",
            "vic commented on issue 660: HTTP 429 for a third of our calls",
        ),
    ),
    Topic(
        ("cache serves stale data", "old values shown after an update"),
        (
            "wade opened issue 670: Price change is visible only after an hour",
            "xia commented on issue 670: the CDN ignores our purge because of the Vary header",
            "yan opened pull request 672: Invalidate the product key on write",
        ),
    ),
    Topic(
        ("search results are irrelevant", "ranking of found products is bad"),
        (
            "zia opened issue 680: 'red shoes' lists blue hats first",
            "alan opened pull request 682: Weigh the title field higher than the description in BM25",
            "beth commented on issue 680: synonyms are not applied at query time",
        ),
    ),
    Topic(
        ("emails land in spam", "mail deliverability problems"),
        (
            "carl opened issue 690: Password reset messages go to junk at Gmail",
            "dina commented on issue 690: the DKIM signature fails since we changed the sending domain",
            "eli closed issue 690: SPF and DMARC records corrected",
        ),
    ),
    Topic(
        ("clock or time zone mistakes", "daylight saving time bug"),
        (
            "flo opened issue 700: Meetings are an hour off after 29 March",
            "gil opened pull request 701: Store timestamps in UTC, convert at the edge",
            "hal commented on issue 700: cron runs twice at 02:30 local",
        ),
    ),
    Topic(
        ("import of CSV files breaks", "spreadsheet upload with wrong encoding"),
        (
            "ida opened issue 710: Umlauts become question marks when a semicolon separated table is loaded",
            "joe commented on issue 710: Excel writes Windows-1252 with a byte order mark",
            "kim opened pull request 712: Detect the character set before parsing rows",
        ),
    ),
    Topic(
        ("backups cannot be restored", "disaster recovery test failed"),
        (
            "leo opened incident 101: Nightly snapshot is 0 bytes since Tuesday",
            "mia commented on incident 101: the dump job lost its permission on the bucket",
            "ned closed incident 101: full restore drill succeeded in 41 minutes",
        ),
    ),
    Topic(
        ("S3 bucket is public", "cloud storage exposed to the internet"),
        (
            "security finding: bucket invoices-archive allows anonymous list and read",
            "opal commented on finding 7: the policy was widened for the migration in 2021",
            "pete opened pull request 720: Block public access in terraform for all buckets",
        ),
    ),
    Topic(
        ("cloud bill is too high", "reduce infrastructure cost"),
        (
            "quig opened issue 730: AWS spend rose 40 % in October",
            "ruby commented on issue 730: cross zone traffic of the Kafka brokers is the largest item",
            "stan opened pull request 732: Use spot instances for batch workers",
        ),
    ),
    Topic(
        ("upgrade to a newer Python", "migrate the interpreter version"),
        (
            "tom opened issue 740: Drop 3.9, support 3.13",
            "una opened pull request 741: Replace distutils, which is gone in 3.12",
            "val commented on pull request 741: asyncio.get_event_loop now warns in the tests",
        ),
    ),
    Topic(
        ("memory leak in the worker", "process grows until it is restarted"),
        (
            "wes opened issue 750: RSS of the image worker doubles every day",
            "xim commented on issue 750: tracemalloc points at an unbounded lru_cache of thumbnails",
            "yul merged pull request 752: Bound the thumbnail cache to 512 entries",
        ),
    ),
    Topic(
        ("new team member joins", "give a person access to the organisation"),
        (
            "organization octo: member_added zed",
            "team backend: zed added with role maintainer",
            "ann commented on issue 760: laptop and badge are ready, welcome on board",
        ),
    ),
    Topic(
        ("customer cancels the subscription", "churn and downgrade of a plan"),
        (
            "customer.subscription.deleted: acme, plan team-annual, reason too expensive",
            "bea opened ticket SUP-320: Wants to leave after the price increase",
            "cy commented on SUP-320: offered 20 % for twelve months",
        ),
    ),
    Topic(
        ("terms of privacy and deletion of personal data", "GDPR erasure request"),
        (
            "del opened ticket SUP-330: Please forget everything about me",
            "ed commented on SUP-330: account 5512 and its exports are gone, logs expire in 30 days",
            "flip opened pull request 770: Erase user content from the analytics warehouse too",
        ),
    ),
    Topic(
        ("video calls stutter", "audio quality is poor in meetings"),
        (
            "gwen opened issue 780: Voices cut out with more than six participants",
            "hugo commented on issue 780: packet loss of 8 % at the TURN relay in Sydney",
            "ivy opened pull request 782: Lower the bitrate before dropping frames",
        ),
    ),
    Topic(
        ("map shows the wrong position", "geolocation is inaccurate"),
        (
            "jon opened issue 790: Couriers appear in the river",
            "kay commented on issue 790: latitude and longitude are swapped in the feed",
            "lou merged pull request 791: Snap coordinates to the nearest street",
        ),
    ),
    Topic(
        ("printer or label output fails", "shipping labels cannot be printed"),
        (
            "may opened issue 800: Zebra prints blank stickers for parcels",
            "nat commented on issue 800: ZPL with 300 dpi is sent to a 203 dpi device",
            "ola closed issue 800: warehouse 4 works again",
        ),
    ),
    Topic(
        ("feature flag turned on too early", "experiment exposed to all users by mistake"),
        (
            "flag new-checkout changed by pam: rollout 5 % to 100 %",
            "ray opened incident 104: Everybody sees the unfinished basket",
            "flag new-checkout changed by pam: rollout 100 % to 0 %",
        ),
    ),
    Topic(
        ("websocket connections drop", "live updates disconnect after a minute"),
        (
            "sky opened issue 810: The stream closes after exactly 60 s",
            "ted commented on issue 810: idle timeout of the load balancer, we send no pings",
            "ulf opened pull request 812: Heartbeat every 25 seconds on the socket",
        ),
    ),
    Topic(
        ("linter or formatter configuration", "code style rules changed"),
        (
            "viv opened pull request 820: Replace flake8 and black by ruff",
            "wyn commented on pull request 820: 400 files change, please merge on Friday evening",
            "workflow run 8400 failed: 12 style violations in src/legacy",
        ),
    ),
)

EVENTS = tuple(event for topic in TOPICS for event in topic.events)
"""All of them, in order."""


def questions() -> list[tuple[str, frozenset[int]]]:
    """Each query, and the places in EVENTS of its answers."""
    found = []
    at = 0
    for topic in TOPICS:
        answers = frozenset(range(at, at + len(topic.events)))
        found += [(query, answers) for query in topic.queries]
        at += len(topic.events)
    return found


LOOKUPS = (
    # A name or a number alone.
    ("payments-api", "payments-api"),
    ("exit code 137", "exit code 137"),
    ("pg-data-1", "pg-data-1"),
    ("SUP-311", "SUP-311"),
    ("SUP-330", "SUP-330"),
    ("order 9917", "order 9917"),
    ("CVE-2021-23337", "CVE-2021-23337"),
    ("GHSA-7", "GHSA-7"),
    ("v3.2.0", "v3.2.0"),
    ("v3.1.4 production", "v3.1.4"),
    ("incident 101", "incident 101"),
    ("pull request 652", "pull request 652"),
    ("issue 690", "issue 690"),
    ("crash group 4471", "crash group 4471"),
    ("advisory 7 forum posts", "GHSA-7"),
    ("flag new-checkout", "new-checkout"),
    ("new-checkout pam", "new-checkout"),
    ("registry.internal", "registry.internal"),
    ("api.example.com certificate", "api.example.com"),
    ("account 5512", "account 5512"),
    ("ja-JP", "ja-JP"),
    ("Windows-1252", "Windows-1252"),
    ("lodash 4.17.21", "lodash"),
    ("orders-events lag", "orders-events"),
    ("invoices-archive bucket", "invoices-archive"),
    # Words of the event, and a guess at its meaning.
    ("who fixed the redis.internal lookup", "redis.internal"),
    ("deadlock when two people pay", "deadlock detected"),
    ("why does dependabot want lodash", "lodash"),
    ("test_reconnect is unreliable", "test_reconnect"),
    ("Kafka brokers expensive", "Kafka brokers"),
    ("Okta loop", "Okta"),
    ("DKIM broken at Gmail", "690"),
    ("NVDA cannot read the form", "NVDA"),
    ("Pixel 4 crash at start", "Pixel 4"),
    ("TURN server in Sydney loses packets", "TURN relay"),
    ("thumbnail cache without limit", "humbnail"),
    ("ruff instead of black", "black by ruff"),
    ("secondary rate limit of GitHub", "secondary rate limit"),
    ("restore drill of the snapshot", "incident 101"),
    ("Zebra label printer 203 dpi", "203 dpi"),
)
"""Each query, and a part of the text of every event that answers it."""


def lookups() -> list[tuple[str, frozenset[int]]]:
    """Each query, and the places in EVENTS of its answers."""
    return [
        (query, frozenset(at for at, event in enumerate(EVENTS) if part in event)) for query, part in LOOKUPS
    ]
