"""Files in which people keep data: rows of any table, and the folders of BEIR."""
