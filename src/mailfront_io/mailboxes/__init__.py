"""Mailboxes: where POP3 finds the messages. One file a kind."""
