// out = the sum of x[i] y[i] in f64, with the errors of products and sums carried along (Ogita, Rump, Oishi: "Accurate sum and dot
// product", 2005). One block of 64 threads.

__device__ __forceinline__ void add(double &sum, double &error, double value)
{
    double whole = sum + value, part = whole - sum;
    error += (sum - (whole - part)) + (value - part);
    sum = whole;
}

extern "C" __global__ void dot_double(const double *__restrict__ x, const double *__restrict__ y, double *__restrict__ out, int n)
{
    __shared__ double sums[64], errors[64];
    double sum = 0, error = 0;
    for (int i = threadIdx.x; i < n; i += 64) {
        double product = __dmul_rn(x[i], y[i]);
        error += fma(x[i], y[i], -product);
        add(sum, error, product);
    }
    sums[threadIdx.x] = sum;
    errors[threadIdx.x] = error;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 64; i++) {
            error += errors[i];
            add(sum, error, sums[i]);
        }
        *out = sum + error;
    }
}
