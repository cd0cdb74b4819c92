# Factorise the matrix in a folder with RcppML, timing the factorisation alone.
#
#   Rscript rcppml.R FOLDER K THREADS MAXIT
#
# The folder holds `shape` (columns, rows, stored cells or 0 for a dense matrix) and `values`, as written row by row;
# read column by column that is features x samples, as RcppML wants it. Sparse: also `indices` and `indptr`.
# Written back: w (features x k), d, h (k x samples), and on standard output seconds and passes.

suppressPackageStartupMessages({
  library(Matrix)
  library(RcppML)
})

args <- commandArgs(TRUE)
path <- function(name) file.path(args[1], name)
read <- function(name, what, n) readBin(path(name), what, n)
setRcppMLthreads(as.integer(args[3]))

shape <- scan(path("shape"), quiet = TRUE)
if (shape[3]) {
  A <- new("dgCMatrix", Dim = as.integer(shape[1:2]), x = read("values", "double", shape[3]),
           i = read("indices", "integer", shape[3]), p = read("indptr", "integer", shape[2] + 1))
} else {
  A <- read("values", "double", shape[1] * shape[2])
  dim(A) <- shape[1:2]
}

run <- function(maxit) nmf(A, as.integer(args[2]), maxit = maxit, seed = 1, verbose = FALSE)
invisible(run(1L))  # a first call takes longer
start <- as.numeric(Sys.time())
model <- run(as.integer(args[4]))
seconds <- as.numeric(Sys.time()) - start

for (name in c("w", "d", "h")) writeBin(as.vector(model[[name]]), path(name))
cat(seconds, model$iter, "\n")
