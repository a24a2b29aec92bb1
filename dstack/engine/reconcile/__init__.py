"""Compares the records with what machines and the artifact store have: nobody is believed who can be asked."""
