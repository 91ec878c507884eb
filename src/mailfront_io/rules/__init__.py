"""Mail rules: a small language that accepts, refuses and configures by sender and recipient.

`glob` matches addresses, `language` reads and prints rules, `decision` applies them: pure, all three. `files` reads
what they refer to, and keeps it until it changes. The plugin is `mailfront_io.plugins.mailrules`, the command
`mailfront_io.rules_command`; the guide is docs/rules.md.
"""
