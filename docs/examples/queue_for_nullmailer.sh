#!/bin/sh
# $QMAILQUEUE for nullmailer: takes a message as qmail-queue does, and gives it to nullmailer-queue, which wants the
# envelope in front of the message. It gets a file that is complete: were this killed in the middle of a pipe,
# nullmailer would take half a message for a whole one.
queue=${NULLMAILER_QUEUE:-/usr/sbin/nullmailer-queue}
place=$(mktemp -d) || exit 53
trap 'rm -rf "$place"' EXIT
cat >"$place/message" || exit 54
tr '\0' '\n' <&1 >"$place/envelope" || exit 54
[ "$(tail -n 1 "$place/envelope" | wc -c)" = 1 ] || exit 91 # its end is missing: whoever wrote it was stopped
{ sed 's/^[FT]//' "$place/envelope" && cat "$place/message"; } >"$place/whole" || exit 53
"$queue" <"$place/whole" || exit 81
