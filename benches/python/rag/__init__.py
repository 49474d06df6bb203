"""P8: documents are ingested and questions are answered, by ours and by what RAG programs are written with.

One module per system: ``found(folder, questions, embedder)`` ingests every file of the folder and returns, for each
question, the passage that is closest to it. Each system takes the loader, splitter and store that its own guide takes
for files of text in one process; where it can keep vectors with faiss, it does. The embedder is the same for all.
"""
