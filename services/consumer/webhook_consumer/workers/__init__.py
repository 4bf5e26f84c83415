"""The work itself, whatever the stage and the queue: read, buffer, handle, settle, keep alive."""
