"""The paper's claims on real data: weak signals between SimCLR and SupCon, from the same encoder in the same steps."""
