// out[row] = x[row] / sqrt(mean(x[row]^2) + eps) * weight, [rows, 4 groups]. One warp a row, four numbers a load, butterflies.

extern "C" __global__ void rms_norm(const float4 *__restrict__ x, const float4 *__restrict__ weight, float4 *__restrict__ out, int rows,
                                    int groups, float eps)
{
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) {
        return;
    }
    float squares = 0;
    for (int i = threadIdx.x; i < groups; i += 32) {
        float4 v = x[row * groups + i];
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        squares += __shfl_xor_sync(0xffffffff, squares, distance);
    }
    float scale = rsqrtf(squares / (4 * groups) + eps);
    for (int i = threadIdx.x; i < groups; i += 32) {
        float4 v = x[row * groups + i], w = weight[i];
        out[row * groups + i] = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
}
