"""The table of stable codes: what each means, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class CodeInfo(NamedTuple):
    """What a code means, what to do about it, and whether the same request may be made again.

    `retryable` has only what certainly did nothing, and may succeed later: who repeats that does nothing twice.
    """

    meaning: str
    hint: str = ""
    retryable: bool = False


CODES: dict[str, CodeInfo] = {
    # The caller's arguments
    "invalid_argument": CodeInfo("an argument has a value that is not allowed"),
    "unknown_option": CodeInfo("an option of this name does not exist"),
    "unsupported": CodeInfo("the peer, or this build, does not have the feature that was asked for"),
    # The protocol
    "invalid_message": CodeInfo("a message cannot be read: its frames, header or body are not as the protocol says"),
    "message_too_large": CodeInfo(
        "a message is over a limit of the link", "Send less at once, or raise the limit that the message names."
    ),
    "unknown_type": CodeInfo("a message has a type that the receiver does not know"),
    "version_mismatch": CodeInfo(
        "the two ends of a link share no protocol version", "Update the older of the two programs."
    ),
    "unexpected_message": CodeInfo("a message came in a state in which it is not allowed"),
    "sequence_gap": CodeInfo("the events of an execution are not numbered 1, 2, 3 … up to the verdict"),
    "credit_exceeded": CodeInfo("a stream carried more bytes than its reader had given credit for"),
    # The verdicts that are not ok
    "execution_error": CodeInfo("the code raised an exception"),
    "execution_interrupted": CodeInfo("the execution, or the answer to a question, was interrupted on request"),
    "execution_timeout": CodeInfo("the execution took longer than its time-out", "Raise `timeout`."),
    "execution_cancelled": CodeInfo("the execution was cancelled before it started", retryable=True),
    "execution_killed": CodeInfo(
        "the worker was killed while the code ran", "The session's state is gone; restart the session."
    ),
    "execution_crashed": CodeInfo(
        "the worker ended by itself while the code ran", "The session's state is gone; restart the session."
    ),
    "execution_oom": CodeInfo(
        "the worker ran out of memory", "Use less memory or raise the session's limit; restart the session."
    ),
    "process_limit_exceeded": CodeInfo(
        "the worker was killed because it had more processes than its session allows",
        "Start fewer processes or raise `max_processes`; restart the session.",
    ),
    "interrupt_ignored": CodeInfo(
        "code in a subshell does not react to an interrupt; it goes on, and what is for the subshell waits",
        "Use another subshell, or restart the session.",
    ),
    "output_drain_timeout": CodeInfo("the output of an execution could not be handed over in time"),
    "output_limit_exceeded": CodeInfo(
        "an execution wrote more output than its session allows",
        "Write less, raise `buffer_bytes`, or choose another backpressure mode.",
    ),
    "result_too_large": CodeInfo(
        "the value of the last expression is over the limit of a message",
        "End the cell with a smaller value, or raise `message_bytes`.",
    ),
    "no_input_client": CodeInfo("the code asked for input and no client can answer", "Pass `on_input`."),
    "input_timeout": CodeInfo("nobody answered a request for input in time"),
    "input_canceled": CodeInfo("the question that the code asked was taken back", "Run the code again."),
    "comm_unknown": CodeInfo("the code has no comm of this id, or has registered no target of this name"),
    "subshell_unknown": CodeInfo("the session has no subshell of this name", "Open one, and use its name."),
    "too_many_subshells": CodeInfo("the session has as many subshells as it may", "Close one of them."),
    # Workers and environments
    "worker_lost": CodeInfo("the worker is gone or broke the protocol", "Restart the session."),
    "worker_start_failed": CodeInfo("a worker could not be started", retryable=True),
    "worker_start_timeout": CodeInfo("a worker did not become ready in time", retryable=True),
    "adoption_refused": CodeInfo("the box that a node left cannot be adopted: it is not this node's, or is gone"),
    "environment_unknown": CodeInfo("the configuration has no environment of this name"),
    "environment_failed": CodeInfo("the environment could not be prepared", "Read the traceback in the details."),
    "sandbox_unavailable": CodeInfo(
        "this machine cannot give the sandbox that the environment asks for",
        "Read the message; `capsule doctor` tells which level can be had, and how.",
    ),
    # Pools
    "pool_closed": CodeInfo("the pool has been closed"),
    "pool_unavailable": CodeInfo(
        "no session is ready and none can be made now", "Correct the cause that the message names.", retryable=True
    ),
    "pool_timeout": CodeInfo(
        "the pool had no session in time", "Close sessions, or allow more of them.", retryable=True
    ),
    "pool_exhausted": CodeInfo(
        "as many wait for a session of the pool as may", "Wait for some of them.", retryable=True
    ),
    # Sessions, clients, nodes
    "session_closed": CodeInfo("the session has been closed", "Open a new session."),
    "session_dead": CodeInfo("the session's worker is dead", "Call `restart()`."),
    "session_restarting": CodeInfo("the session is being restarted", retryable=True),
    "queue_full": CodeInfo(
        "the session has as many requests waiting as it may", "Wait for some of them.", retryable=True
    ),
    "client_closed": CodeInfo("the client has been closed", "Create a new client."),
    "node_closed": CodeInfo("the node has been closed"),
    "too_many_sessions": CodeInfo("the node has as many sessions as it may", "Close one of them.", retryable=True),
    "descriptors_exhausted": CodeInfo(
        "the node has no file descriptor left for another session",
        "Close sessions, or allow the node more open files.",
        retryable=True,
    ),
    "request_timeout": CodeInfo(
        "a request was not answered in time", "Allow more time; look first whether it was done if it changes something."
    ),
    "internal_error": CodeInfo("the node made a mistake of its own", "Report it, with what the node has logged."),
    "session_unknown": CodeInfo(
        "the node has no session of this name or id for this client",
        "Open one; it may have been closed because nobody came back for it.",
    ),
    "session_taken": CodeInfo("another client has taken the session over", "Attach to it to take it back."),
    "session_elsewhere": CodeInfo(
        "the session belongs to another node of the same store", "Connect to the node that the message names."
    ),
    "session_killed": CodeInfo("an operator has ended the session", "Open a new session."),
    "session_watched": CodeInfo(
        "this client only watches the session", "Attach to it without `watch` to have it run code."
    ),
    "session_shared": CodeInfo(
        "this client only shares the session, which another one drives",
        "Attach to it without `share` to have it for itself, or ask whoever drives it.",
    ),
    "too_many_watchers": CodeInfo("the session has as many watchers as it may", retryable=True),
    "execution_unknown": CodeInfo(
        "the node has no execution of this id, or has forgotten it", "Run it again if that does no harm."
    ),
    "epoch_mismatch": CodeInfo(
        "the session is in another epoch: its state is not the one that was meant",
        "Make the state anew, then run the code without `if_epoch`, or with the present epoch.",
    ),
    "too_many_requests": CodeInfo(
        "the client has as many requests under way as it may", "Wait for some of them.", retryable=True
    ),
    "node_unreachable": CodeInfo(
        "no node answers at the address", "Start one with `capsule serve`, or correct the address.", retryable=True
    ),
    "connection_lost": CodeInfo(
        "the connection to the node was lost and did not come back in time",
        "Look whether the node runs; attach to the session by its id.",
    ),
    "address_in_use": CodeInfo("another node listens at the address", "Stop it, or choose another address."),
    "too_many_clients": CodeInfo("the node has as many connections as it may", retryable=True),
    # Files of a session
    "file_unknown": CodeInfo("the session has no file of this name", "`files()` tells which there are."),
    "file_refused": CodeInfo(
        "the name leads to no regular file below the session's directory",
        "Use `'name'` or `'folder/name'`, of a regular file that is not a link.",
    ),
    "file_changed": CodeInfo(
        "the file was changed or taken away while it was transferred", "Transfer it when the code is done with it."
    ),
    "checksum_mismatch": CodeInfo("what arrived is not what was sent; nothing was kept of it", retryable=True),
    "transfer_failed": CodeInfo("a file could not be read or written", "Read the message: the disk may be full."),
    "too_many_transfers": CodeInfo(
        "the session has as many transfers under way as it may", "Wait for some of them.", retryable=True
    ),
    "too_many_files": CodeInfo("the session has more files than can be listed", "Remove some, or put them together."),
    # What was saved of a session
    "checkpoint_refused": CodeInfo(
        "the file is no checkpoint that this node has made for this principal, as it is now",
        "Restore the file as it was saved, at the node that saved it.",
    ),
    "checkpoint_mismatch": CodeInfo(
        "the session's interpreter or its packages are not those that the checkpoint needs",
        "Open a session in an environment that has what the message names.",
    ),
    "checkpoint_too_large": CodeInfo(
        "a checkpoint is larger than the node allows",
        "Save fewer `names`, or raise the limit that the message names.",
    ),
    "checkpoint_failed": CodeInfo(
        "the session could not be saved or restored", "Read the message: it says what stood in the way."
    ),
    "name_taken": CodeInfo("there is a session of this name", "Attach to it, or choose another name."),
    "access_denied": CodeInfo(
        "the node does not let this client in", "Check the key; `capsule keys list` shows which ones are valid."
    ),
    "permission_denied": CodeInfo("the role of the principal is too small for this"),
    "quota_exceeded": CodeInfo("the principal uses as much as it may", "Wait, or end something.", retryable=True),
    "address_refused": CodeInfo("the address or its directory is not safe to use"),
    # Durable promises
    "idempotency_conflict": CodeInfo(
        "the idempotency key, or the promise's id, was used before with another request",
        "Use a key of its own for each request.",
    ),
    "promise_unknown": CodeInfo(
        "there is no promise of this id", "Look whether the id, and the store, are the right ones."
    ),
    "answer_refused": CodeInfo(
        "the answer is none that the question allows; the question stays open", "Give one that the message names."
    ),
    "promise_expired": CodeInfo(
        "the promise was kept as long as its store keeps them, and has been forgotten",
        "Ask sooner. A request that shall be done again needs a new key.",
    ),
    "promise_settled": CodeInfo("the promise has its verdict, and nothing can be added to it"),
    "promise_fenced": CodeInfo("the promise has been taken over: who owned it before may not settle it"),
    "store_unavailable": CodeInfo(
        "the durable store cannot commit; whether it kept what was asked for is not known",
        "Correct the cause that the message names, and ask again with the same key.",
        retryable=True,
    ),
    "store_locked": CodeInfo("another node uses the store", "Stop it, or give this node a store of its own."),
    "store_refused": CodeInfo("the file or the database is not a store that this version can use"),
    "store_damaged": CodeInfo(
        "the file of the durable store is damaged",
        "Stop the node and keep a copy of all its files; `capsule store check` tells what is wrong.",
    ),
    "store_closed": CodeInfo("the store has been closed"),
    # Capabilities
    "capability_unknown": CodeInfo(
        "no provider of this node has this operation", "`help(caps)` lists what is granted."
    ),
    "capability_invalid": CodeInfo("the arguments of a call do not fit the schema of its operation"),
    "capability_denied": CodeInfo(
        "no grant of the policy allows this call", "Ask the operator; `capsule policy explain` tells which line counts."
    ),
    "capability_outside_grant": CodeInfo(
        "the call is outside of what its grant allows", "Stay within the grant, or ask the operator for a wider one."
    ),
    "capability_throttled": CodeInfo("the session calls more often than its grant allows", "Wait.", retryable=True),
    "capability_busy": CodeInfo(
        "the session has as many of these calls under way as its grant allows", "Wait for some.", retryable=True
    ),
    "capability_isolated": CodeInfo(
        "too many calls failed: the session gets no more of them for a while", "Wait, then try one.", retryable=True
    ),
    "capability_timeout": CodeInfo("a call took longer than its grant allows"),
    "capability_failed": CodeInfo("a call was allowed and could not be done"),
    "capability_too_large": CodeInfo("a call carries more bytes than its grant allows", "Carry less at once."),
    "capability_uncertain": CodeInfo(
        "the node, or the provider, died while the call was under way: whether it took effect is not known",
        "Look whether it did before you call again.",
    ),
    "capability_canceled": CodeInfo("the call was given up: its execution has ended"),
    "approval_denied": CodeInfo("whoever was asked has not approved the call"),
    "approval_expired": CodeInfo("nobody approved the call in time", retryable=True),
    "audit_unavailable": CodeInfo(
        "the audit trail cannot be written, so no call is made",
        "Correct the cause that the message names.",
        retryable=True,
    ),
    "audit_damaged": CodeInfo("the audit trail is not as it was written", "Keep a copy of all its files."),
    "policy_refused": CodeInfo("the policy cannot be used", "Correct the line that the message names."),
    "root_exposes_node": CodeInfo(
        "a root of a grant would give code what is the node's own",
        "Grant a directory apart from it, and move nothing there.",
    ),
    "provider_refused": CodeInfo("a provider cannot be used by this node", "Correct the cause that the message names."),
    "provider_unavailable": CodeInfo("the provider of a call cannot act now", retryable=True),
    "secret_unknown": CodeInfo("the node has no secret of this name"),
    # Calls to `files`
    "path_refused": CodeInfo(
        "the path does not lead to a file or directory below the root",
        "Use `'root/folder/name'`, with a root that is granted; links and special files are not followed.",
    ),
    "path_unknown": CodeInfo("there is nothing at the path"),
    "path_exists": CodeInfo("there is something at the path already"),
    "path_is_directory": CodeInfo("there is a directory at the path"),
    "path_not_directory": CodeInfo("there is no directory at the path"),
    "path_not_empty": CodeInfo("the directory is not empty"),
    # Calls to `http`
    "address_denied": CodeInfo(
        "the host has an address that is not to be reached: private, loopback, link-local, metadata"
    ),
    "http_failed": CodeInfo("the server could not be reached, or did not answer as HTTP has it"),
    # Calls to `shell`
    "program_failed": CodeInfo("the program could not be started"),
}
"""Every code that can cross the wire or reach a user."""
