"""What a reply that did not come says, also in another process."""

import copy

from catkit_devices._wire.byte_stream import IncompleteReplyError


def test_a_reply_that_did_not_come_to_its_end_is_the_same_error_in_another_process():
    there = copy.copy(IncompleteReplyError(2.0, b"1.5"))  # made again as when it is unpickled
    assert (str(there), there.received) == ("only b'1.5' in 2 s", b"1.5")
