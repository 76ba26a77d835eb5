import java.security.spec.AlgorithmParameterSpec;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import javax.crypto.Cipher;
import javax.crypto.spec.ChaCha20ParameterSpec;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** Ciphertexts of Java's javax.crypto, as JSON: a row for each combination. The plaintext is 31 * i + 7. */
class Vectors {
  static final List<String> rows = new ArrayList<>();

  static byte[] plain(int size) {
    byte[] data = new byte[size];
    for (int i = 0; i < size; i++) data[i] = (byte) (31 * i + 7);
    return data;
  }

  static byte[] key(int size) {
    byte[] data = new byte[size];
    for (int i = 0; i < size; i++) data[i] = (byte) (i + 1);
    return data;
  }

  static byte[] iv(int size) {
    byte[] data = new byte[size];
    for (int i = 0; i < size; i++) data[i] = (byte) (0xf0 - size + i);
    return data;
  }

  static byte[] ones() {
    byte[] data = new byte[16];
    java.util.Arrays.fill(data, (byte) 255);
    return data;
  }

  static byte[] join(byte[] first, byte[] second) {
    byte[] data = java.util.Arrays.copyOf(first, first.length + second.length);
    System.arraycopy(second, 0, data, first.length, second.length);
    return data;
  }

  static String hex(byte[] data) {
    return HexFormat.of().formatHex(data);
  }

  static byte[] run(String name, int keySize, AlgorithmParameterSpec spec, int size, byte[] associated)
      throws Exception {
    Cipher cipher = Cipher.getInstance(name);
    SecretKeySpec key = new SecretKeySpec(key(keySize), name.replaceAll("/.*", ""));
    if (spec == null) cipher.init(Cipher.ENCRYPT_MODE, key);
    else cipher.init(Cipher.ENCRYPT_MODE, key, spec);
    if (associated != null) cipher.updateAAD(associated);
    return cipher.doFinal(plain(size));
  }

  static void add(String cipher, String layout, String algorithm, int size, byte[] output, String options) {
    rows.add(String.format(
      "{\"cipher\":\"%s\",\"layout\":\"%s\",\"algorithm\":\"%s\",\"size\":%d,\"options\":{%s},\"output\":\"%s\"}",
      cipher, layout, algorithm, size, options, hex(output)));
  }

  static String option(String name, byte[] value) {
    return String.format("\"%s\":\"%s\"", name, hex(value));
  }

  public static void main(String[] args) throws Exception {
    byte[] name = "name".getBytes();
    for (int size : new int[] {16, 24, 32}) {
      add("AES/CBC/PKCS5Padding, " + 8 * size + " bits", "IV apart", "cbc(aes)", 33,
        run("AES/CBC/PKCS5Padding", size, new IvParameterSpec(iv(16)), 33, null),
        option("key", key(size)) + "," + option("iv", iv(16)));
    }
    add("AES/CBC/PKCS5Padding, 256 bits", "IV in front", "cbc(aes)", 64,
      join(iv(16), run("AES/CBC/PKCS5Padding", 32, new IvParameterSpec(iv(16)), 64, null)),
      option("key", key(32)) + ",\"ivPrefix\":true");
    add("AES/CBC/NoPadding", "whole blocks", "cbc(aes)", 64,
      run("AES/CBC/NoPadding", 16, new IvParameterSpec(iv(16)), 64, null),
      option("key", key(16)) + "," + option("iv", iv(16)) + ",\"padding\":\"none\"");
    add("AES/ECB/PKCS5Padding", "bare", "ecb(aes)", 20, run("AES/ECB/PKCS5Padding", 16, null, 20, null),
      option("key", key(16)));
    add("AES", "the default: ECB with padding", "ecb(aes)", 20, run("AES", 32, null, 20, null), option("key", key(32)));
    for (String mode : new String[] {"CTR", "CFB", "OFB"}) {
      add("AES/" + mode + "/NoPadding", "IV apart", mode.toLowerCase() + "(aes)", 70,
        run("AES/" + mode + "/NoPadding", 32, new IvParameterSpec(iv(16)), 70, null),
        option("key", key(32)) + "," + option("iv", iv(16)));
    }
    add("AES/CTR/NoPadding", "the counter wraps", "ctr(aes)", 70,
      run("AES/CTR/NoPadding", 16, new IvParameterSpec(ones()), 70, null),
      option("key", key(16)) + "," + option("iv", ones()));
    add("DESede/CBC/PKCS5Padding", "IV apart", "cbc(des3_ede)", 30,
      run("DESede/CBC/PKCS5Padding", 24, new IvParameterSpec(iv(8)), 30, null),
      option("key", key(24)) + "," + option("iv", iv(8)));
    add("ChaCha20", "counter 1", "chacha20", 130, run("ChaCha20", 32, new ChaCha20ParameterSpec(iv(12), 1), 130, null),
      option("key", key(32)) + "," + option("iv", join(new byte[] {1, 0, 0, 0}, iv(12))));
    for (int size : new int[] {16, 32}) {
      add("AES/GCM/NoPadding, " + 8 * size + " bits", "IV apart, updateAAD", "gcm(aes)", 91,
        run("AES/GCM/NoPadding", size, new GCMParameterSpec(128, iv(12)), 91, name),
        option("key", key(size)) + "," + option("iv", iv(12)) + "," + option("associatedData", name));
      add("AES/GCM/NoPadding, " + 8 * size + " bits", "IV in front", "gcm(aes)", 91,
        join(iv(12), run("AES/GCM/NoPadding", size, new GCMParameterSpec(128, iv(12)), 91, null)),
        option("key", key(size)) + ",\"ivPrefix\":true");
    }
    add("AES/GCM/NoPadding", "tag of 96 bits", "gcm(aes)", 91,
      run("AES/GCM/NoPadding", 32, new GCMParameterSpec(96, iv(12)), 91, null),
      option("key", key(32)) + "," + option("iv", iv(12)) + ",\"tagSize\":12");
    String by = "Java " + System.getProperty("java.version");
    System.out.println("{\"by\":\"" + by + "\",\"rows\":[" + String.join(",", rows) + "]}");
  }
}
