"""The rows of hostile input that concern SMTP: each has a test named by its id (``test_h01_…``), or stands here
with the reason why not yet. `test_rows.py` checks that none is left out.

H01-H07  end of data and smuggling                     test_end_of_data.py
H08-H12  BDAT, and earlier rows where a message comes in chunks; H70 XCLIENT  test_extensions.py
H13-H15  what follows it                               test_end_of_data.py
H16-H19  long lines, big messages                      test_size.py
H20-H24  slow, silent, many, broken peers              test_size.py
H25-H30  order and verdicts                            test_state.py
H31-H34  STARTTLS                                      test_state.py
H38      whole sessions under every split              test_state.py
H39-H46  authentication; H47-H51 names, secrets, CVM   test_auth.py
H87, H88 SCRAM, CRAM-MD5                               test_auth.py
H52-H59  addresses, parameters, what is done with them test_addresses.py
H57-H60, H66, H81, H83, H90  deliveries, programs and servers that die  test_delivery.py
H60-H62  what leaves: replies, logs                    test_output.py
H64      the client role's arguments                   test_output.py
H63, H64 what an upstream server does to us            test_upstream.py
H67      plugins that hang or raise                    test_plugin_faults.py
H82, H90 disks that fail, modes of files               test_files.py
H84, H85 TLS settings, the client role                 test_system.py
H93      the time that globs, patterns, addresses take; H57, H59 for rules and lists  test_rules.py
H86, H89, H91, H92, H94                                test_system.py
H37, H63, H75, H76, H80  POP3, and others' rows in it  test_pop3.py
H76-H80  maildirs                                      test_maildir.py
H72      netstrings; others' rows in QMTP and QMQP     test_netstrings.py
H68      answers of the DNS; H50 by any datagram         test_names.py
H65, H66 the answers of clamd and spamd; H60 in them   test_scanners.py
H73, H74 IMAP's literals and words; others' rows in it test_imap.py
H69      the PROXY protocol; H23 behind it             test_proxy.py
"""

_TESTED = """
H01 H02 H03 H04 H05 H06 H07 H08 H09 H10 H11 H12 H13 H14 H15 H16 H17 H18 H19 H20 H21 H22 H23 H24 H25 H26 H27 H28 H29
H30 H31 H32 H33 H70
H34 H35 H36 H38 H39 H40 H41 H42 H43 H44 H45 H46 H47 H48 H49 H50 H51 H52 H53 H54 H55 H56 H57 H58 H59 H60 H61 H62 H64 H67
H68 H81 H82 H83 H84 H85 H86 H87 H88 H89 H90 H91 H92 H93 H94
H37 H63 H65 H66 H69 H72 H73 H74 H75 H76 H77 H78 H79 H80
"""

TESTED = frozenset(_TESTED.split())
