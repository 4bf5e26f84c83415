"""What is put together from its parts is what the generated code would write."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from webhook.security.v1.admission_pb2 import Delivery, Header
from webhook.security.v1.admission_service_pb2 import AdmitRequest
from webhook_gateway.security_client import written

# Lengths on both sides of where they take another byte.
bodies = st.one_of(st.binary(max_size=200), st.sampled_from((127, 128, 16_383, 16_384)).map(bytes))
headers = st.builds(Header, name=st.text(max_size=8), value=st.binary(max_size=200))
deliveries = st.builds(
    Delivery,
    tenant=st.text(max_size=150),
    tool=st.text(max_size=8),
    headers=st.lists(headers, max_size=3),
    query=st.binary(max_size=8),
)


@settings(deadline=None)
@given(st.lists(st.tuples(deliveries, bodies), max_size=4))
def test_a_request_is_read_as_it_was_written(parts: list[tuple[Delivery, bytes]]) -> None:
    expected = AdmitRequest()
    for delivery, body in parts:
        whole = expected.deliveries.add()
        whole.CopyFrom(delivery)
        whole.body = body
    assert AdmitRequest.FromString(written(parts)) == expected
